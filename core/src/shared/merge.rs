//! What the viewers of a stream say, merged whole message by whole message into one lane.
//!
//! Viewers take turns: one message each, so that one that says much delays another by one message and no more. Each has
//! an inbox with a bound; a full one holds up its own viewer only.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use super::{ViewerId, charge};

/// Bytes that wait in one viewer's inbox before it is held up; the message that passes the bound is taken whole.
pub const INBOX_BYTES_MAX: usize = 64 * 1024;

/// Bytes that viewers may leave behind altogether when they go while the worker takes nothing.
pub const LEFT_BEHIND_BYTES_MAX: usize = 1024 * 1024;

#[derive(Debug, Default)]
struct Inbox {
    messages: VecDeque<Bytes>,
    bytes: usize,
    /// Its viewer is gone.
    left: bool,
    /// Its viewer found no room and waits.
    held_up: bool,
}

/// The inboxes of all viewers, and whose turn it is.
#[derive(Debug)]
pub struct Merge {
    /// Those that hold something or whose viewer is there. Made when first needed.
    inboxes: Option<HashMap<ViewerId, Inbox>>,
    /// Each viewer whose inbox holds something, once.
    turns: VecDeque<ViewerId>,
    bytes: usize,
    left_behind: usize,
}

impl Merge {
    /// No viewers.
    #[must_use]
    pub const fn new() -> Self {
        Self { inboxes: None, turns: VecDeque::new(), bytes: 0, left_behind: 0 }
    }

    fn inbox(&mut self, viewer: ViewerId) -> Option<&mut Inbox> {
        self.inboxes.as_mut()?.get_mut(&viewer)
    }

    /// Adds a viewer.
    pub fn join(&mut self, viewer: ViewerId) {
        self.inboxes.get_or_insert_default().insert(viewer, Inbox::default());
    }

    /// Bytes that may be taken in from `viewer`; if none, [`Self::take`] names it when there is room again.
    pub fn room(&mut self, viewer: ViewerId) -> usize {
        let Some(inbox) = self.inbox(viewer) else { return 0 };
        let room = INBOX_BYTES_MAX.saturating_sub(inbox.bytes);
        inbox.held_up = room == 0;
        room
    }

    /// Takes in a message of `viewer`.
    pub fn offer(&mut self, viewer: ViewerId, message: Bytes) {
        let charge = charge(&message);
        let Some(inbox) = self.inbox(viewer) else { return };
        inbox.bytes += charge;
        inbox.messages.push_back(message);
        if inbox.messages.len() == 1 {
            self.turns.push_back(viewer);
        }
        self.bytes += charge;
    }

    /// The message whose turn it is, and its viewer if that waits for room and there is some now.
    pub fn take(&mut self) -> Option<(Bytes, Option<ViewerId>)> {
        let viewer = self.turns.pop_front()?;
        let inbox = self.inbox(viewer)?;
        let message = inbox.messages.pop_front()?;
        inbox.bytes -= charge(&message);
        let (left, more) = (inbox.left, !inbox.messages.is_empty());
        let freed = std::mem::take(&mut inbox.held_up);
        self.bytes -= charge(&message);
        if left {
            self.left_behind -= charge(&message);
        }
        if more {
            self.turns.push_back(viewer);
        } else if left && let Some(inboxes) = &mut self.inboxes {
            inboxes.remove(&viewer);
        }
        Some((message, freed.then_some(viewer)))
    }

    /// Takes a viewer out. What it said stays, if there is room for it; how many messages there was none for.
    pub fn leave(&mut self, viewer: ViewerId) -> u64 {
        let left_behind = self.left_behind;
        let Some(inbox) = self.inbox(viewer) else { return 0 };
        let (bytes, messages) = (inbox.bytes, inbox.messages.len() as u64);
        if messages > 0 && left_behind + bytes <= LEFT_BEHIND_BYTES_MAX {
            inbox.left = true;
            inbox.held_up = false;
            self.left_behind += bytes;
            return 0;
        }
        if let Some(inboxes) = &mut self.inboxes {
            inboxes.remove(&viewer);
        }
        self.turns.retain(|&turn| turn != viewer);
        self.bytes -= bytes;
        messages
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Bytes that wait, with what each message is charged beside its own.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Default for Merge {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shared::MESSAGE_OVERHEAD_BYTES;

    const ANN: ViewerId = ViewerId(1);
    const BEN: ViewerId = ViewerId(2);

    fn of(viewers: &[ViewerId]) -> Merge {
        let mut merge = Merge::new();
        viewers.iter().for_each(|&viewer| merge.join(viewer));
        merge
    }

    fn texts(merge: &mut Merge) -> Vec<String> {
        std::iter::from_fn(|| merge.take()).map(|(message, _)| String::from_utf8_lossy(&message).into_owned()).collect()
    }

    fn say(merge: &mut Merge, viewer: ViewerId, texts: &[&'static str]) {
        texts.iter().for_each(|text| merge.offer(viewer, Bytes::from_static(text.as_bytes())));
    }

    #[test]
    fn viewers_take_turns_and_each_keeps_its_order() {
        let mut merge = of(&[ANN, BEN]);
        say(&mut merge, ANN, &["a1", "a2", "a3", "a4"]);
        say(&mut merge, BEN, &["b1", "b2"]);
        assert_eq!(texts(&mut merge), ["a1", "b1", "a2", "b2", "a3", "a4"]);
        assert_eq!(merge.bytes(), 0);
    }

    #[test]
    fn a_full_inbox_holds_up_its_viewer_until_a_message_was_taken() {
        let size = INBOX_BYTES_MAX - MESSAGE_OVERHEAD_BYTES;
        for (bytes, room) in [(size - 1, 1), (size, 0), (size + 1, 0)] {
            let mut merge = of(&[ANN, BEN]);
            merge.offer(ANN, Bytes::from(vec![0; bytes]));
            assert_eq!(merge.room(ANN), room);
            assert_eq!(merge.room(BEN), INBOX_BYTES_MAX, "no other viewer is held up");
            let (_, freed) = merge.take().unwrap();
            assert_eq!(freed, (room == 0).then_some(ANN));
            assert_eq!(merge.room(ANN), INBOX_BYTES_MAX);
        }
    }

    #[test]
    fn what_a_viewer_said_before_it_left_goes_on_its_way() {
        let mut merge = of(&[ANN, BEN]);
        say(&mut merge, ANN, &["a1", "a2"]);
        assert_eq!(merge.leave(ANN), 0);
        say(&mut merge, BEN, &["b1"]);
        assert_eq!(texts(&mut merge), ["a1", "b1", "a2"]);
        assert_eq!((merge.bytes(), merge.left_behind), (0, 0));
        assert_eq!(merge.inboxes.as_ref().map(HashMap::len), Some(1), "only the one that is there has an inbox");
    }

    #[test]
    fn viewers_that_come_and_go_leave_no_more_behind_than_the_bound() {
        let half = LEFT_BEHIND_BYTES_MAX / 2 - MESSAGE_OVERHEAD_BYTES;
        let mut merge = Merge::new();
        let mut leave = |number: u64, bytes: usize| {
            let viewer = ViewerId(number);
            merge.join(viewer);
            merge.offer(viewer, Bytes::from(vec![0; bytes]));
            merge.leave(viewer)
        };
        assert_eq!((leave(1, half), leave(2, half), leave(3, 0)), (0, 0, 1));
        assert_eq!(merge.bytes(), LEFT_BEHIND_BYTES_MAX);
        assert!(merge.take().is_some() && merge.take().is_some() && merge.take().is_none());
        assert_eq!((merge.bytes(), merge.left_behind), (0, 0));
    }
}
