//! What a proxy says it holds, and what it has of the machine.

use crate::harness::Proxy;

const MIB: f64 = 1_048_576.0;

/// What resident memory may grow by for each byte of the books.
const RESIDENT_MAX: f64 = 1.3;

/// What it may grow by beside that: arenas of the allocator, pages touched for the first time, the numbers for metrics.
const ALLOCATOR_BASE: f64 = 8.0 * MIB;

/// What the books are made of; what shared streams hold, and messages, are part of what pipes occupy.
const KINDS: [&str; 5] = ["pipes", "requests", "limits", "keys", "buffers"];

/// The books and the resident size of one proxy before an attack on it.
pub struct Books<'a> {
    proxy: &'a Proxy,
    before: Reading,
}

/// One reading of both, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    pub said: f64,
    pub resident: f64,
}

impl<'a> Books<'a> {
    /// The books of a proxy that nothing was done to yet.
    pub async fn open(proxy: &'a Proxy) -> Self {
        // What the first reading allocates is no part of an attack.
        read(proxy).await;
        Self { proxy, before: read(proxy).await }
    }

    /// What both have grown by, which must be in proportion.
    pub async fn check(&self, what: &str) -> Reading {
        // Between the books and the resident size of one reading, a busy machine lets an attack go on: what was there when
        // the size was read is in this reading or in the next.
        let (now, next) = (read(self.proxy).await, read(self.proxy).await);
        let said = now.said.max(next.said) - self.before.said;
        let grown = Reading { said, resident: now.resident - self.before.resident };
        let (said, resident) = (grown.said / MIB, grown.resident / MIB);
        assert!(
            grown.resident <= grown.said.max(0.0) * RESIDENT_MAX + ALLOCATOR_BASE,
            "{what}: {resident:.1} MiB resident, and the books say {said:.1}"
        );
        grown
    }
}

/// What the books say is not many times what is resident either: who shares something is not charged all of it.
pub fn assert_not_counted_twice(what: &str, grown: Reading) {
    let (said, resident) = (grown.said / MIB, grown.resident / MIB);
    assert!(
        grown.said <= grown.resident * 1.5 + ALLOCATOR_BASE,
        "{what}: {said:.1} MiB said of {resident:.1} resident"
    );
}

async fn read(proxy: &Proxy) -> Reading {
    let metrics = proxy.metrics().await;
    let kind = |kind: &str| metrics.sum("memory_bytes", &[("kind", kind)]);
    Reading { said: KINDS.iter().map(|name| kind(name)).sum(), resident: kind("rss") }
}
