//! What a worker says about itself in the answer to an `http` probe: its memory and its CPU, in the shapes that device
//! bridges and capture services use. Anything else in the answer is none of our business, and no answer is wrong.

use serde_json::Value;

/// Where a worker may say how much memory it uses, in MiB.
const MEMORY_MB: &[&str] = &["/memory/rss_mb", "/checks/memory_usage_mb"];

/// Where it may say how much it may use, in MiB.
const LIMIT_MB: &[&str] = &["/memory/limit_mb"];

/// Where it may say how busy it is.
const CPU_PERCENT: &[&str] = &["/checks/cpu_percent", "/cpu_percent"];

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
    pub fn parse(body: &[u8]) -> Option<Self> {
        // What is around the object is the framing of a chunked answer.
        let from = body.iter().position(|&byte| byte == b'{')?;
        let to = body.iter().rposition(|&byte| byte == b'}')?;
        let answer: Value = serde_json::from_slice(body.get(from..=to)?).ok()?;
        let report = Self {
            memory_bytes: number(&answer, MEMORY_MB).map(bytes),
            memory_limit_bytes: number(&answer, LIMIT_MB).map(bytes).filter(|&limit| limit > 0),
            cpu_percent: number(&answer, CPU_PERCENT).map(|percent| percent.round().min(1e6) as u32),
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

fn number(answer: &Value, places: &[&str]) -> Option<f64> {
    let number = places.iter().find_map(|place| answer.pointer(place)?.as_f64())?;
    (number.is_finite() && number >= 0.0).then_some(number)
}

fn bytes(mebibytes: f64) -> u64 {
    (mebibytes.min(MB_MAX) * 1_048_576.0) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn both_shapes_are_read() {
        let bridge = br#"{"status":"healthy","memory":{"rss_mb":512.5,"limit_mb":2048,"percent":3.1}}"#;
        let report = WorkerReport::parse(bridge).unwrap();
        assert_eq!((report.memory_bytes, report.memory_limit_bytes), (Some(512 * MIB + MIB / 2), Some(2048 * MIB)));
        let capture = br#"{"status":"healthy","checks":{"memory_usage_mb":256.0,"cpu_percent":12.6},"version":"1"}"#;
        let report = WorkerReport::parse(capture).unwrap();
        assert_eq!((report.memory_bytes, report.memory_limit_bytes), (Some(256 * MIB), None));
        assert_eq!(report.cpu_percent, Some(13));
    }

    #[test]
    fn the_framing_of_a_chunk_is_passed_over() {
        assert!(WorkerReport::parse(b"1d\r\n{\"memory\":{\"rss_mb\":1.0}}\r\n0\r\n\r\n").is_some());
    }

    #[test]
    fn anything_else_reports_nothing() {
        for body in
            ["", "ok", "{}", "[1]", "{\"memory\":\"much\"}", "{\"memory\":{\"rss_mb\":-1}}", "}{", "{\"memory\":"]
        {
            assert_eq!(WorkerReport::parse(body.as_bytes()), None, "{body}");
        }
        let endless = WorkerReport::parse(b"{\"memory\":{\"rss_mb\":1e300,\"limit_mb\":0}}").unwrap();
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
