//! The judgement: what was promised, and which of it the evidence contradicts.
//!
//! Pure: the evidence goes in, the broken promises come out.

use serde::Serialize;

use super::page::Verdict;

/// What clients, journals and the proxy say once everything has come to rest.
#[derive(Debug, Clone, Default)]
pub(super) struct Evidence {
    /// Commands that clients sent.
    pub sent: u64,
    /// Commands that are in no worker's journal.
    pub lost_up: u64,
    /// Executed commands whose answer no client got, and video frames that are missing or not whole.
    pub lost_down: u64,
    /// Messages that the proxy itself says it gave up, over both lanes.
    pub proxy_lost: u64,
    /// Executions beyond the first.
    pub duplicated: u64,
    /// Messages that the proxy counted as in doubt.
    pub in_doubt: u64,
    /// Commands that a worker executed after a later one of the same attachment.
    pub out_of_order: u64,
    /// Commands and answers with numbers that were never sent.
    pub invented: u64,
    /// Client sockets that closed before the demo closed them.
    pub client_closes: u64,
    /// What was said when the first of them closed.
    pub first_close: Option<String>,
    /// Screens without a new frame since the last kill.
    pub still_screens: u64,
    /// Lines of level ERROR in the proxy's log.
    pub proxy_errors: u64,
    /// The proxy's process ended before its time.
    pub proxy_died: bool,
}

/// Messages without a trace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Lost {
    /// From client to worker.
    pub up: u64,
    /// From worker to client.
    pub down: u64,
}

/// The promises that were broken, each in one sentence; empty when all were kept.
pub(super) fn broken(evidence: &Evidence) -> Vec<String> {
    let e = evidence;
    let first_close = e.first_close.as_deref().unwrap_or("no reason known");
    let claims = [
        (e.sent == 0, "no client could send anything".to_owned()),
        (e.lost_up > 0, format!("{} of {} commands were executed by no worker", e.lost_up, e.sent)),
        (e.lost_down > 0, format!("{} messages to clients are missing or not whole", e.lost_down)),
        (e.proxy_lost > 0, format!("the proxy says that it gave up {} messages", e.proxy_lost)),
        (
            e.duplicated > e.in_doubt,
            format!("{} commands were executed again, and only {} were in doubt", e.duplicated, e.in_doubt),
        ),
        (e.out_of_order > 0, format!("{} commands were executed out of order", e.out_of_order)),
        (e.invented > 0, format!("{} numbers came that nobody sent", e.invented)),
        (e.client_closes > 0, format!("{} client sockets closed, the first with {first_close}", e.client_closes)),
        (e.still_screens > 0, format!("{} screens stand still", e.still_screens)),
        (e.proxy_errors > 0, format!("the proxy logged {} errors", e.proxy_errors)),
        (e.proxy_died, "the proxy's process ended".to_owned()),
    ];
    claims.into_iter().filter_map(|(is_broken, sentence)| is_broken.then_some(sentence)).collect()
}

/// The verdict in one sentence.
pub(super) fn verdict(evidence: &Evidence, interruptions: u64) -> Verdict {
    let broken = broken(evidence);
    if broken.is_empty() {
        let text = format!(
            "Every promise was kept: {} commands sent, none lost, no client socket closed, over {interruptions} interruptions.",
            evidence.sent
        );
        return Verdict { ok: true, text };
    }
    Verdict { ok: false, text: format!("Broken promises: {}.", broken.join("; ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fine() -> Evidence {
        Evidence { sent: 100, duplicated: 3, in_doubt: 3, ..Evidence::default() }
    }

    #[test]
    fn duplicates_up_to_what_was_in_doubt_break_nothing() {
        assert_eq!(broken(&fine()), Vec::<String>::new());
        assert!(verdict(&fine(), 7).ok);
    }

    #[test]
    fn each_broken_promise_is_named_alone() {
        type Way = (fn(&mut Evidence), &'static str);
        let ways: [Way; 11] = [
            (|e| e.sent = 0, "could send"),
            (|e| e.lost_up = 2, "2 of 100 commands were executed by no worker"),
            (|e| e.lost_down = 1, "messages to clients"),
            (|e| e.proxy_lost = 4, "gave up 4 messages"),
            (|e| e.duplicated = 4, "4 commands were executed again, and only 3 were in doubt"),
            (|e| e.out_of_order = 1, "out of order"),
            (|e| e.invented = 1, "nobody sent"),
            (|e| e.client_closes = 1, "1 client sockets closed"),
            (|e| e.still_screens = 1, "stand still"),
            (|e| e.proxy_errors = 1, "logged 1 errors"),
            (|e| e.proxy_died = true, "process ended"),
        ];
        for (break_it, words) in ways {
            let mut evidence = fine();
            break_it(&mut evidence);
            let broken = broken(&evidence);
            assert_eq!(broken.len(), 1, "{broken:?}");
            assert!(broken[0].contains(words), "{broken:?}");
            assert!(!verdict(&evidence, 1).ok);
        }
    }

    #[test]
    fn the_reason_of_the_first_close_is_told() {
        let evidence = Evidence { client_closes: 2, first_close: Some("phone-3: 1011 oops".into()), ..fine() };
        assert!(verdict(&evidence, 1).text.contains("the first with phone-3: 1011 oops"));
    }
}
