//! What a worker says about itself in the answer to an `http` probe: its memory and its CPU, in the shapes that device
//! bridges and capture services use. Anything else in the answer is none of our business, and no answer is wrong.

use serde_json::Value;
use std::sync::Arc;

/// Where a worker may say how much memory it uses, in MiB.
const MEMORY_MB: &[&str] = &["/memory/rss_mb", "/resources/memory/rss_mb", "/checks/memory_usage_mb"];

/// Where it may say how much it may use, in MiB.
const LIMIT_MB: &[&str] = &["/memory/limit_mb", "/resources/memory/limit_mb"];

/// Where it may say how busy it is.
const CPU_PERCENT: &[&str] = &["/checks/cpu_percent", "/cpu_percent"];

/// Where else a pool's workers say so: JSON pointers, which go before the places that are known.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReportPointers {
    /// Memory that they use, in MiB.
    pub rss_mb: Option<Arc<str>>,
    /// Memory that they may use, in MiB.
    pub limit_mb: Option<Arc<str>>,
}

/// The largest number of MiB that is believed: an exbibyte.
const MB_MAX: f64 = (1_u64 << 40) as f64;

/// What one worker reports.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WorkerReport {
    /// Bytes it uses.
    pub memory_bytes: Option<u64>,
    /// Bytes it may use.
    pub memory_limit_bytes: Option<u64>,
    /// Its share of a core, rounded; more than 100 with several.
    pub cpu_percent: Option<u32>,
}

impl WorkerReport {
    /// What the body of an answer reports, if anything.
    #[must_use]
    pub fn parse(body: &[u8], pointers: &ReportPointers) -> Option<Self> {
        // What is around the object is the framing of a chunked answer.
        let from = body.iter().position(|&byte| byte == b'{')?;
        let to = body.iter().rposition(|&byte| byte == b'}')?;
        let answer: Value = serde_json::from_slice(body.get(from..=to)?).ok()?;
        let report = Self {
            memory_bytes: number(&answer, pointers.rss_mb.as_deref(), MEMORY_MB).map(bytes),
            memory_limit_bytes: number(&answer, pointers.limit_mb.as_deref(), LIMIT_MB)
                .map(bytes)
                .filter(|&limit| limit > 0),
            cpu_percent: number(&answer, None, CPU_PERCENT).map(|percent| percent.round().min(1e6) as u32),
        };
        (report != Self::default()).then_some(report)
    }

    /// The part of its memory that is free, in percent, where `limit_bytes` holds if it names none itself.
    #[must_use]
    pub fn free_percent(&self, limit_bytes: u64) -> Option<u8> {
        let limit = self.memory_limit_bytes.unwrap_or(limit_bytes);
        let free = limit.saturating_sub(self.memory_bytes?);
        let percent = u128::from(free) * 100 / u128::from(Some(limit).filter(|&limit| limit > 0)?);
        u8::try_from(percent).ok()
    }
}

fn number(answer: &Value, first: Option<&str>, places: &[&str]) -> Option<f64> {
    let places = first.into_iter().chain(places.iter().copied());
    let number = places.into_iter().find_map(|place| answer.pointer(place)?.as_f64())?;
    (number.is_finite() && number >= 0.0).then_some(number)
}

fn bytes(mebibytes: f64) -> u64 {
    (mebibytes.min(MB_MAX) * 1_048_576.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn parse(body: &[u8]) -> Option<WorkerReport> {
        WorkerReport::parse(body, &ReportPointers::default())
    }

    #[test]
    fn ios_bridges_real_page_is_read() {
        let page = br#"{"status":"healthy","sessions":{"total":2},"resources":{"memory":{"rss_mb":187.4,"vms_mb":402.0,
            "percent":1.1,"available_mb":9000.0,"limit_mb":1024},"cpu_percent":3.0}}"#;
        let report = parse(page).unwrap();
        assert_eq!(
            (report.memory_bytes.map(|bytes| bytes / MIB), report.memory_limit_bytes),
            (Some(187), Some(1024 * MIB))
        );
    }

    #[test]
    fn an_operators_pointer_goes_before_the_places_that_are_known() {
        let pointers = ReportPointers { rss_mb: Some("/m/a~1b".into()), limit_mb: Some("/m/max".into()) };
        let page = br#"{"m":{"a/b":3},"memory":{"rss_mb":512,"limit_mb":2048}}"#;
        let report = WorkerReport::parse(page, &pointers).unwrap();
        assert_eq!(
            (report.memory_bytes, report.memory_limit_bytes),
            (Some(3 * MIB), Some(2048 * MIB)),
            "or else those"
        );
    }

    #[test]
    fn the_short_shapes_are_read() {
        let bridge = br#"{"status":"healthy","memory":{"rss_mb":512.5,"limit_mb":2048,"percent":3.1}}"#;
        let report = parse(bridge).unwrap();
        assert_eq!((report.memory_bytes, report.memory_limit_bytes), (Some(512 * MIB + MIB / 2), Some(2048 * MIB)));
        let capture = br#"{"status":"healthy","checks":{"memory_usage_mb":256.0,"cpu_percent":12.6},"version":"1"}"#;
        let report = parse(capture).unwrap();
        assert_eq!((report.memory_bytes, report.memory_limit_bytes), (Some(256 * MIB), None));
        assert_eq!(report.cpu_percent, Some(13));
    }

    #[test]
    fn the_framing_of_a_chunk_is_passed_over() {
        assert!(parse(b"1d\r\n{\"memory\":{\"rss_mb\":1.0}}\r\n0\r\n\r\n").is_some());
    }

    #[test]
    fn anything_else_reports_nothing() {
        for body in
            ["", "ok", "{}", "[1]", "{\"memory\":\"much\"}", "{\"memory\":{\"rss_mb\":-1}}", "}{", "{\"memory\":"]
        {
            assert_eq!(parse(body.as_bytes()), None, "{body}");
        }
        let endless = parse(b"{\"memory\":{\"rss_mb\":1e300,\"limit_mb\":0}}").unwrap();
        assert_eq!((endless.memory_bytes, endless.memory_limit_bytes), (Some(1 << 60), None));
    }

    #[test]
    fn what_is_free_counts_from_its_own_limit_or_else_from_ours() {
        let report = |used, limit| WorkerReport { memory_bytes: used, memory_limit_bytes: limit, cpu_percent: None };
        assert_eq!(report(Some(25), Some(100)).free_percent(0), Some(75));
        assert_eq!(report(Some(25), None).free_percent(50), Some(50));
        assert_eq!(report(Some(25), None).free_percent(0), None);
        assert_eq!(report(None, Some(100)).free_percent(50), None);
        assert_eq!(report(Some(200), Some(100)).free_percent(0), Some(0));
    }
}
