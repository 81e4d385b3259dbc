//! Durations, sizes and rates as people write them, both ways.
//!
//! What is shown reads back as the same value.

use std::time::Duration;

use serde_json::{Value, json};

use super::types::Rate;

const DURATIONS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1000), ("m", 60_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

/// In descending order, so that the first one that divides a size is the one to show it in.
const SIZES: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1000),
    ("B", 1),
];

/// `30s`, `50ms`, `1m30s`; `0` needs no unit.
pub(super) fn duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut millis: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let (count, after) = digits(rest)?;
        let end = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, next) = after.split_at(end);
        let (_, unit) = DURATIONS.iter().find(|(name, _)| *name == unit)?;
        millis = millis.checked_add(count.checked_mul(*unit)?)?;
        rest = next;
    }
    (!text.is_empty()).then(|| Duration::from_millis(millis))
}

/// A duration of whole milliseconds, in the largest unit that people read at a glance.
pub(super) fn show_duration(duration: Duration) -> String {
    let millis = duration.as_millis();
    let seconds = millis / 1000;
    match () {
        () if millis == 0 => "0s".to_owned(),
        () if !millis.is_multiple_of(1000) => format!("{millis}ms"),
        () if seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        () if seconds.is_multiple_of(60) && seconds >= 600 => format!("{}m", seconds / 60),
        () => format!("{seconds}s"),
    }
}

/// `5MiB`, `128KiB`, `1GB`, or plain bytes.
pub(super) fn size(text: &str) -> Option<u64> {
    let (count, unit) = digits(text)?;
    let unit = unit.trim_start();
    if unit.is_empty() {
        return Some(count);
    }
    let (_, unit) = SIZES.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    count.checked_mul(*unit)
}

/// Bytes in the largest binary unit that divides them.
pub(super) fn show_size(bytes: u64) -> String {
    let exact = SIZES
        .iter()
        .filter(|(name, _)| name.ends_with("iB"))
        .find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    match exact {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => bytes.to_string(),
    }
}

/// `20/min`, `5/s`, `100/h`, `1MiB/s`, `5 per second`; `0` is no limit.
pub(super) fn rate(text: &str) -> Option<Rate> {
    if text == "0" {
        return Some(Rate::OFF);
    }
    let (count, per) = text.split_once('/').or_else(|| text.split_once(" per "))?;
    let seconds = match per.trim() {
        "s" | "sec" | "second" => 1,
        "m" | "min" | "minute" => 60,
        "h" | "hour" => 3600,
        _ => return None,
    };
    let rate = Rate::new(size(count.trim_end())?, Duration::from_secs(seconds));
    Some(if rate.is_off() { Rate::OFF } else { rate })
}

/// A rate per second, minute or hour.
pub(super) fn show_rate(rate: Rate) -> String {
    if rate.is_off() {
        return "0".to_owned();
    }
    let per = match rate.per.as_secs() {
        1 => "s",
        60 => "min",
        _ => "h",
    };
    format!("{}/{per}", rate.count)
}

/// The JSON Schema of [`duration`].
pub(super) fn duration_form() -> Value {
    json!({ "type": "string", "pattern": "^(0|([0-9]+(ms|s|m|min|h|d))+)$" })
}

/// The JSON Schema of [`size`].
pub(super) fn size_form() -> Value {
    json!({ "type": "string", "pattern": "^[0-9]+ *(([TtGgMmKk][Ii]?)?[Bb])?$" })
}

/// The JSON Schema of [`rate`].
pub(super) fn rate_form() -> Value {
    json!({ "type": "string", "pattern": "^(0|[0-9].*(/| per ) *(s|sec|second|m|min|minute|h|hour))$" })
}

fn digits(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    Some((digits.parse().ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_write_them() {
        let cases = [
            ("30s", Some(30_000)),
            ("50ms", Some(50)),
            ("1m30s", Some(90_000)),
            ("2h", Some(7_200_000)),
            ("0", Some(0)),
            ("", None),
            ("30", None),
            ("s", None),
            ("-1s", None),
            ("1.5s", None),
            ("30 s", None),
            ("30sec", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
            ("1s1é", None),
        ];
        for (text, millis) in cases {
            assert_eq!(duration(text), millis.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn sizes_are_binary_or_decimal_and_never_overflow() {
        let cases = [
            ("5MiB", Some(5 << 20)),
            ("128KiB", Some(128 << 10)),
            ("1GB", Some(1_000_000_000)),
            ("1 gib", Some(1 << 30)),
            ("17", Some(17)),
            ("0", Some(0)),
            ("5M", None),
            ("-1", None),
            ("", None),
            ("18446744073709551615TiB", None),
            ("5é", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(size(text), bytes, "{text}");
        }
    }

    #[test]
    fn what_is_shown_reads_back_as_the_same_value() {
        for millis in [0, 1, 50, 999, 1000, 1500, 59_000, 60_000, 90_000, 600_000, 3_600_000, 5_400_000] {
            let value = Duration::from_millis(millis);
            assert_eq!(duration(&show_duration(value)), Some(value));
        }
        for bytes in [0, 1, 1000, 1023, 1024, 1 << 20, (1 << 20) + 1, 5 << 30, 1 << 50] {
            assert_eq!(size(&show_size(bytes)), Some(bytes));
        }
        for text in ["0", "20/min", "5/s", "100/h", "1MiB/s", "0/s", "5 per second", "20 per minute", "1 per h"] {
            let value = rate(text).unwrap();
            assert_eq!(rate(&show_rate(value)), Some(value));
        }
        assert_eq!(rate("5 per second"), rate("5/s"));
        assert_eq!((rate("5/day"), rate("5per s"), rate("per s")), (None, None, None));
        assert_eq!(rate("5"), None);
    }
}
