//! The one rendering of `/metrics`, which all share that ask meanwhile.
//!
//! It takes a look at every pipe and backend, so it is made on a thread of its own and never twice at once, however many
//! ask: the answers to health checks wait for none of it. Invariant: what a caller gets was begun after it asked, so that
//! what it did before is counted in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use bytes::Bytes;
use tokio::sync::Mutex;

/// The last rendering, and the way to the next.
#[derive(Debug, Default)]
pub(super) struct Scrape {
    begun: Arc<AtomicU64>,
    last: Arc<Mutex<Rendered>>,
}

#[derive(Debug, Default)]
struct Rendered {
    /// Counted from 1.
    number: u64,
    text: Bytes,
}

impl Scrape {
    /// What `render` makes, or what another caller had made by it since this was called; nothing if it panics.
    pub(super) async fn get(&self, render: impl FnOnce() -> String + Send + 'static) -> Option<Bytes> {
        let before = self.begun.load(SeqCst);
        let mut last = self.last.clone().lock_owned().await;
        if last.number > before {
            return Some(last.text.clone());
        }
        let begun = self.begun.clone();
        // The lock goes along: a caller that leaves does not end the rendering, and none may begin beside it.
        let rendering = tokio::task::spawn_blocking(move || {
            let number = begun.fetch_add(1, SeqCst) + 1;
            *last = Rendered { number, text: render().into() };
            last.text.clone()
        });
        rendering.await.ok()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn one_rendering_at_a_time_is_shared_by_all_that_ask_meanwhile() {
        let scrape = Arc::new(Scrape::default());
        let (go_on, gate) = mpsc::channel::<()>();
        let (begins, begun) = tokio::sync::oneshot::channel();
        let first = {
            let scrape = scrape.clone();
            let render = move || {
                let _ = begins.send(());
                gate.recv().unwrap();
                "first".to_owned()
            };
            tokio::spawn(async move { scrape.get(render).await.unwrap() })
        };
        begun.await.unwrap();
        let (made, asked) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let later: Vec<_> = (0..50)
            .map(|_| {
                let (scrape, made, asked) = (scrape.clone(), made.clone(), asked.clone());
                let render = move || format!("later {}", made.fetch_add(1, SeqCst));
                tokio::spawn(async move {
                    asked.fetch_add(1, SeqCst);
                    scrape.get(render).await.unwrap()
                })
            })
            .collect();
        // On one thread, a task that has counted itself has asked too.
        while asked.load(SeqCst) < later.len() {
            tokio::task::yield_now().await;
        }
        // Its caller leaves, and the rendering goes on alone.
        first.abort();
        go_on.send(()).unwrap();
        for task in later {
            let text = task.await.unwrap();
            assert!(text.starts_with(b"later"), "begun after it was asked for: {text:?}");
        }
        assert!(made.load(SeqCst) <= 2, "{made:?} renderings for 50 callers");
    }

    #[tokio::test]
    async fn a_rendering_that_panics_fails_one_caller() {
        let scrape = Scrape::default();
        assert_eq!(scrape.get(|| panic!("on purpose")).await, None);
        assert_eq!(scrape.get(|| "fine".to_owned()).await.unwrap(), "fine");
    }
}
