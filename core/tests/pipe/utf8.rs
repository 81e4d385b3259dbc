//! Text that is not UTF-8, where a route holds its peers to it and where not.

use holdline_core::pipe::PipeState;

use crate::bench::{Bench, closed, text};
use crate::wire::{self, Item};

const NOT_UTF8: &str = "text is not UTF-8";

fn strict() -> Bench {
    Bench::with(|settings| settings.check_utf8 = true)
}

#[test]
fn a_client_whose_text_is_not_utf8_is_closed_with_1007_and_the_worker_gets_what_stood_before() {
    for cut in [1, 5, 9, 14] {
        let mut bench = strict();
        let sent = [wire::frame(0x81, b"fine", Some([1, 2, 3, 4])), wire::frame(0x81, b"\xC3\x28", Some([5, 6, 7, 8]))];
        let sent = sent.concat();
        bench.client_sends(&sent[..cut]);
        bench.client_sends(&sent[cut..]);
        assert_eq!(bench.client_got(), [closed(1007, NOT_UTF8)], "{cut}");
        assert_eq!(bench.worker_got().first(), Some(&text("fine")), "{cut}");
    }
}

#[test]
fn a_character_may_be_parted_by_frames_and_by_a_ping_and_binary_is_anything() {
    let mut bench = strict();
    let euro = "€".as_bytes();
    bench.client_frame(0x01, &euro[..1]);
    bench.client_frame(0x89, b"\xFF");
    bench.client_frame(0x80, &euro[1..]);
    bench.client_frame(0x82, b"\xFF");
    bench.worker_says("answer €");
    assert_eq!(bench.worker_got(), [text("€"), Item::Binary(vec![0xFF])]);
    assert_eq!(bench.client_got(), [Item::Pong(vec![0xFF]), text("answer €")]);
}

#[test]
fn text_that_ends_amid_a_character_reaches_nothing() {
    let mut bench = strict();
    bench.client_frame(0x01, b"abc\xE2\x82");
    bench.client_frame(0x80, b"");
    assert_eq!(bench.client_got(), [closed(1007, NOT_UTF8)]);
    assert!(!bench.worker_got().iter().any(|item| matches!(item, Item::Text(_))));
}

#[test]
fn a_worker_whose_text_is_not_utf8_is_left_and_its_client_stays() {
    let mut bench = strict();
    bench.worker_frame(0x81, b"good");
    bench.worker_frame(0x81, b"\xFF");
    assert_eq!(bench.client_got(), [text("good")]);
    assert_ne!(bench.state(), PipeState::Attached);
}

#[test]
fn without_the_setting_text_goes_on_as_it_is() {
    let mut bench = Bench::new();
    let frame = wire::frame(0x82, b"\xFF", Some([0; 4]));
    let as_text: Vec<u8> = [&[0x81], &frame[1..]].concat();
    bench.client_sends(&as_text);
    assert_eq!(bench.client_got(), []);
    assert_eq!(bench.state(), PipeState::Attached);
}
