//! Durations in bodies and queries: `25s`, `500ms`, `2m`, `1h`.

use std::time::Duration;

use super::problem::Problem;

/// The longest wait that is granted; proxies in between tend to give up after a minute.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// What [`parse`] takes, as a regular expression.
pub const PATTERN: &str = "^[0-9]+(ms|s|m|min|h)$";

/// The duration written at `pointer`.
///
/// # Errors
/// A problem that points there if it is not a whole number with a unit.
pub fn parse(pointer: &str, text: &str) -> Result<Duration, Problem> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let millis = match &text[digits.len()..] {
        "ms" => 1,
        "s" => 1000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => 0,
    };
    let count: Option<u64> = digits.parse().ok().filter(|_| millis != 0);
    let duration = count.and_then(|count| count.checked_mul(millis)).map(Duration::from_millis);
    duration.ok_or_else(|| Problem::invalid(pointer, "must be a duration such as \"15s\" or \"500ms\""))
}

/// `?wait=`: shortened to [`WAIT_MAX`]; absent is not at all.
///
/// # Errors
/// As [`parse`].
pub fn wait(asked: Option<&str>) -> Result<Duration, Problem> {
    let wait = asked.map_or(Ok(Duration::ZERO), |text| parse("/query/wait", text))?;
    Ok(wait.min(WAIT_MAX))
}

/// The form that [`parse`] reads back.
#[must_use]
pub fn show(duration: Duration) -> String {
    let millis = duration.as_millis();
    if millis.is_multiple_of(1000) { format!("{}s", millis / 1000) } else { format!("{millis}ms") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_waits_a_bound() {
        for (text, millis) in [("25s", 25_000), ("500ms", 500), ("61s", 60_000), ("2h", 60_000)] {
            assert_eq!(wait(Some(text)).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for text in ["", "s", "3", "1d", "-1s", "1.5s", "99999999999999999999s", "9999999999999999999s", "1 s"] {
            assert!(wait(Some(text)).is_err(), "{text}");
        }
        assert_eq!(show(Duration::from_secs(15)), "15s");
        assert_eq!(show(Duration::from_millis(1500)), "1500ms");
    }
}
