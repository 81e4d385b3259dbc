//! A stream's life: who may come, what goes to whom, and when it is over.

use super::*;

const SETTINGS: StreamSettings = StreamSettings { bytes_max: 1 << 20, catch_up: 0, linger: Duration::from_secs(300) };

fn at(seconds: u64) -> Time {
    Time::from_micros(seconds * 1_000_000)
}

#[test]
fn an_unwatched_stream_lives_for_its_linger_and_no_longer() {
    let mut stream = Stream::new(SETTINGS, at(0));
    let seat = stream.join().unwrap();
    assert_eq!(stream.deadline(), None);
    assert_eq!(stream.leave(seat, at(10)), 0);
    assert_eq!((stream.idle_since(), stream.deadline()), (Some(at(10)), Some(at(310))));
    assert!(!stream.expire(at(309)));
    assert!(stream.is_open());
    assert!(stream.expire(at(310)));
    assert!(!stream.expire(at(310)), "it is said once");
    assert!(stream.join().is_none());
}

#[test]
fn a_viewer_that_comes_while_it_lingers_keeps_it() {
    let mut stream = Stream::new(SETTINGS, at(0));
    let seat = stream.join().unwrap();
    stream.leave(seat, at(10));
    let _seat = stream.join().unwrap();
    assert_eq!(stream.deadline(), None);
    assert!(!stream.expire(at(1000)));
    assert!(!stream.shed(), "a watched stream is not shed");
}

#[test]
fn shedding_ends_a_linger_at_once() {
    let mut stream = Stream::new(SETTINGS, at(0));
    assert!(stream.shed());
    assert!(stream.expire(at(0)));
}

#[test]
fn what_was_said_before_the_last_viewer_left_still_goes() {
    let mut stream = Stream::new(StreamSettings { linger: Duration::ZERO, ..SETTINGS }, at(0));
    let seat = stream.join().unwrap();
    stream.offer(&seat, Bytes::from_static(b"tap"));
    stream.leave(seat, at(1));
    assert!(!stream.expire(at(1)), "something waits for the worker");
    assert_eq!(stream.take_up(), Some((Bytes::from_static(b"tap"), None)));
    assert!(stream.expire(at(1)));
}

#[test]
fn the_end_comes_behind_the_last_message_and_nothing_behind_the_end() {
    let mut stream = Stream::new(SETTINGS, at(0));
    let mut seat = stream.join().unwrap();
    stream.push(Bytes::from_static(b"last"));
    stream.end(CloseFrame::new(1013, "no backend within grace"));
    stream.push(Bytes::from_static(b"too late"));
    stream.end(CloseFrame::new(1000, ""));
    assert_eq!(stream.take(&mut seat), Taken::Message(Bytes::from_static(b"last")));
    for _ in 0..2 {
        assert_eq!(stream.take(&mut seat), Taken::End(CloseFrame::new(1013, "no backend within grace")));
    }
    assert_eq!(stream.room(&seat), 0);
    assert!(stream.join().is_none());
}
