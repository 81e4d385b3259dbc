//! How a run ends: when nothing goes wrong any more, by the worker's word, without viewers, or by force.

use std::time::Duration;

use holdline_core::ids::BackendKey;

use super::{Worker, World};
use crate::viewer::Pace;
use crate::wire::{close_payload, frame};

impl World {
    /// Nothing goes wrong any more, and every peer reads.
    pub(super) fn calm_down(&mut self) {
        self.room = usize::MAX;
        for _ in 0..400 {
            self.now = self.now + Duration::from_millis(20);
            self.viewers.iter_mut().for_each(|viewer| viewer.pace = Pace::Quick);
            self.worker_step_calm();
            self.turns(false);
        }
        assert!(self.worker.is_some() && !self.ended, "the stream outlives all its workers");
        for viewer in &self.viewers {
            if viewer.is_watching() {
                viewer.check_books(&self.sent);
            }
            let (got, _) = self.tapped[viewer.number];
            assert!(got + viewer.lost_up >= viewer.taps, "viewer {}: {got} of {} taps", viewer.number, viewer.taps);
        }
    }

    fn worker_step_calm(&mut self) {
        if let Some((attachment, _)) = self.dialing.take() {
            assert!(self.pipe.attached(attachment, BackendKey(1 + attachment.0), None, self.now));
            self.worker = Some(Worker::new(attachment));
            self.tapped.iter_mut().for_each(|(_, this)| *this = 0);
        }
        self.deliver(usize::MAX);
    }

    /// The worker ends the conversation: every viewer is told so, behind what it was still due.
    pub(super) fn end_by_worker(&mut self) {
        let watching: Vec<_> = self.watching();
        self.worker_says();
        if let Some(worker) = &mut self.worker {
            worker.said_close = true;
            worker.out.extend(frame(0x88, &close_payload(4004, "gone"), None));
        }
        self.settle();
        for number in watching {
            self.mark("told the end of the worker");
            assert_eq!(self.viewers[number].told, Some(4004), "viewer {number}");
            self.viewers[number].check_books(&self.sent);
        }
        self.check_over();
    }

    /// All viewers go, none comes, and the worker is told goodbye: in time, or at once when memory is short.
    pub(super) fn end_without_viewers(&mut self) {
        let now = self.now;
        if !self.watching().is_empty() {
            assert!(!self.stream.shed(), "a stream that is watched does not linger");
        }
        self.viewers.iter_mut().for_each(|viewer| viewer.say_close(now));
        self.settle();
        if self.once_in(2) {
            assert_eq!(self.worker_told, None, "it lingers");
            self.mark("shed while it lingers");
            assert!(self.stream.shed());
        } else {
            self.now = self.now + Duration::from_secs(3600);
        }
        self.settle();
        assert_eq!(self.worker_told, Some(1001));
        self.check_over();
    }

    /// The worker dies and no other comes within grace, or memory is out and the stream has to go with all its viewers.
    pub(super) fn end_by_force(&mut self) {
        let watching: Vec<_> = self.watching();
        if self.once_in(2) {
            self.kill_worker();
            self.dialing = None;
            self.now = self.now + Duration::from_secs(31);
            self.pipe.tick(self.now);
        } else {
            self.mark("the stream evicted");
            assert!(self.pipe.evict(self.now));
            self.pump();
            assert_eq!(
                (self.worker_told, self.pipe.charged_bytes()),
                (Some(1001), 0),
                "it frees at once what it holds"
            );
        }
        for _ in 0..100 {
            self.now = self.now + Duration::from_millis(20);
            self.turns(false);
        }
        for number in watching {
            assert_eq!(self.viewers[number].told, Some(1013), "viewer {number}");
        }
        self.check_over();
    }

    fn watching(&self) -> Vec<usize> {
        self.viewers.iter().filter(|viewer| viewer.is_watching()).map(|viewer| viewer.number).collect()
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            self.now = self.now + Duration::from_millis(20);
            self.worker_step_calm();
            self.turns(false);
        }
    }

    fn check_over(&mut self) {
        // A viewer that never answered a close frame is dropped in time.
        self.now = self.now + Duration::from_secs(40);
        self.turns(false);
        self.now = self.now + Duration::from_secs(40);
        self.turns(false);
        assert!(self.finished, "the stream's pipe is over");
        assert_eq!(self.pipe.charged_bytes(), 0, "bytes leaked");
        assert!(self.viewers.iter().all(|viewer| viewer.charged_bytes() == 0), "bytes leaked by a viewer");
        assert!(self.viewers.iter().all(|viewer| viewer.finished), "and so is every viewer's");
        assert_eq!((self.stream.viewers(), self.stream.join().is_none()), (0, true));
    }
}
