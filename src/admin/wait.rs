//! `?wait=25s`: how long a request may be kept waiting.

use std::time::Duration;

use super::problem::Problem;

/// The longest wait that is granted; proxies in between tend to give up after a minute.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// The wait asked for, shortened to [`WAIT_MAX`]; absent is not at all.
///
/// # Errors
/// A problem if it is not a whole number of `s`, `ms` or (without a unit) seconds.
pub fn parse(asked: Option<&str>) -> Result<Duration, Problem> {
    let Some(text) = asked else {
        return Ok(Duration::ZERO);
    };
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let wait = match (digits.parse(), &text[digits.len()..]) {
        (Ok(count), "ms") => Duration::from_millis(count),
        (Ok(count), "s" | "") => Duration::from_secs(count),
        (_, _) => return Err(Problem::invalid("/query/wait", "must be a duration such as 25s or 500ms")),
    };
    Ok(wait.min(WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_have_units_and_a_bound() {
        for (text, millis) in [("25s", 25_000), ("500ms", 500), ("3", 3000), ("61s", 60_000), ("99999999999s", 60_000)] {
            assert_eq!(parse(Some(text)).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for text in ["", "s", "1h", "-1s", "1.5s", "99999999999999999999s"] {
            assert!(parse(Some(text)).is_err(), "{text}");
        }
    }
}
