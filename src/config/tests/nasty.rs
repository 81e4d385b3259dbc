//! Whatever is written, reading answers; it never panics and never takes for ever.

use super::*;

#[test]
fn no_text_makes_reading_panic() {
    let deep = "[".repeat(100_000);
    let deep_value = format!("x = {}", "[".repeat(100_000));
    let deep_tables = format!("x = {}", "{a=".repeat(50_000));
    let long = format!("{} = 1", "k".repeat(1_000_000));
    let texts = [
        "=",
        "[[",
        "]]",
        "[a",
        "a = ",
        "a = \"",
        "a = '''",
        "\u{0}",
        "\u{feff}\u{feff}",
        "é = 1",
        "\"\\u0000\" = 1",
        "\"\" = 1",
        "[\"\"]",
        "server = [[[]]]",
        "pools = [[]]",
        "pools.name = 1",
        "[pools]\n[[pools]]",
        "[[routes]]\nprologue = 5",
        "[[routes]]\nreplay_tail = []",
        "a = 1979-05-27T07:32:00Z",
        "server.threads = 0xffffffffffffffff",
        "server.threads = nan",
        "\r",
        "a = 1\r\nb = é",
        "routes = [{ path = \"/{*\" }]",
        "routes = [{ path = \"/{}{}\" }]",
        "routes = [{ path = \"/é\u{202e}\" }]",
        "routes = [{ key = \"{{{\" }]",
        "routes = [{ hosts = [\"*.\", \"[\", \"\"] }]",
        "pools = [{ backends = [{ url = \"ws://[::1\" }] }]",
        "pools = [{ backends = [{ url = \"ws://[]:1/\" }] }]",
        "pools = [{ backends = [{ url = \"ws://é\" }] }]",
        "admin.tokens_file = \"\\u0000\"",
        "server.listen = [\"unix:\"]",
        "routes = [{ interrupt_codes = [\"-\", \"1-\", \"é-\", 70000] }]",
    ];
    for text in texts.into_iter().chain([&*deep, &deep_value, &deep_tables, &long]) {
        if let Err(invalid) = read(text) {
            assert!(!invalid.errors.is_empty() && invalid.to_string().len() < 100_000);
        }
    }
}

#[test]
fn no_value_of_any_key_makes_reading_panic() {
    let values = [
        "",
        " ",
        ",",
        "=",
        "[",
        "{",
        "[[",
        "{a=[",
        "-1",
        "99999999999999999999999",
        "\u{0}",
        "é",
        "0",
        "1",
        "-",
        "/",
        "{}",
        "[]",
        "latest:",
        "1/",
        "/s",
        "unix:",
        "ws://",
        "ws://[",
        "*.",
        "{x",
        "nan",
        "1e9",
        "\n",
        "'",
    ];
    for key in Config::known_keys() {
        for value in values {
            if let Ok(loaded) = Config::read(None, [(key.variable.clone(), value.to_owned())]) {
                let _ = loaded.config.print();
            }
        }
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn any_text_has_an_answer(text in ".{0,200}") {
        let _ = read(&text);
    }

    #[test]
    fn anything_that_looks_like_a_file_has_an_answer(
        lines in proptest::collection::vec(
            r#"(\[{1,2}(server|pools|routes|pools\.backends|é)\]{1,2})|((listen|url|path|key|hosts|health|grace) ?= ?("[^"]{0,9}"|[0-9\[\]{},x.-]{0,9}))"#,
            0..12,
        )
    ) {
        if let Ok(loaded) = read(&lines.join("\n")) {
            // Whatever was accepted is shown as something that is accepted.
            let printed = loaded.config.print();
            proptest::prop_assert!(read(&printed).is_ok(), "{}", printed);
        }
    }
}
