//! From when until when a certificate is good, read out of its DER.
//!
//! Only the way to that field is walked (RFC 5280 section 4.1); signatures and names are the TLS library's business.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::der::{SEQUENCE, behind_issuer, take};

const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The time within which a certificate is good, both ends included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Validity {
    /// From here on.
    pub not_before: SystemTime,
    /// Up to here.
    pub not_after: SystemTime,
}

/// How a certificate stands at one moment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Standing {
    /// It is good.
    Good,
    /// Its time has not come.
    NotYet,
    /// Its time is over.
    Expired,
}

impl Validity {
    /// What the certificate says; nothing if it is none.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let rest = behind_issuer(certificate)?;
        let (validity, _) = take(rest, SEQUENCE)?;
        let (not_before, rest) = time(validity)?;
        let (not_after, _) = time(rest)?;
        Some(Self { not_before, not_after })
    }

    /// How it stands `now`.
    #[must_use]
    pub fn at(&self, now: SystemTime) -> Standing {
        if now < self.not_before {
            Standing::NotYet
        } else if now > self.not_after {
            Standing::Expired
        } else {
            Standing::Good
        }
    }
}

/// The time in front (RFC 5280 section 4.1.2.5: always UTC, always with seconds), and what is behind it.
fn time(der: &[u8]) -> Option<(SystemTime, &[u8])> {
    let (text, century, rest) = if let Some((text, rest)) = take(der, UTC_TIME) {
        let year: u8 = std::str::from_utf8(text.get(..2)?).ok()?.parse().ok()?;
        (text, if year < 50 { "20" } else { "19" }, rest)
    } else {
        let (text, rest) = take(der, GENERALIZED_TIME)?;
        (text, "", rest)
    };
    let text = format!("{century}{}", std::str::from_utf8(text).ok()?);
    let at = DateTime::strptime("%Y%m%d%H%M%SZ", text).ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp();
    let since = Duration::from_secs(at.as_second().unsigned_abs());
    let at = if at.as_second() < 0 { UNIX_EPOCH.checked_sub(since)? } else { UNIX_EPOCH.checked_add(since)? };
    Some((at, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(years: std::ops::Range<i32>) -> Vec<u8> {
        let mut parameters = rcgen::CertificateParams::new(vec!["w".to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(years.start, 1, 2);
        parameters.not_after = rcgen::date_time_ymd(years.end, 1, 2);
        let key = rcgen::KeyPair::generate().unwrap();
        parameters.self_signed(&key).unwrap().der().to_vec()
    }

    fn at(text: &str) -> SystemTime {
        text.parse::<jiff::Timestamp>().unwrap().into()
    }

    #[test]
    fn both_forms_of_time_are_read_and_both_ends_are_included() {
        for (years, begin, end) in [
            (2020..2030, "2020-01-02T00:00:00Z", "2030-01-02T00:00:00Z"),
            (1960..2049, "1960-01-02T00:00:00Z", "2049-01-02T00:00:00Z"),
            (2020..4096, "2020-01-02T00:00:00Z", "4096-01-02T00:00:00Z"),
        ] {
            let validity = Validity::of(&made(years)).unwrap();
            assert_eq!((validity.not_before, validity.not_after), (at(begin), at(end)));
            let second = Duration::from_secs(1);
            for (now, standing) in [
                (validity.not_before - second, Standing::NotYet),
                (validity.not_before, Standing::Good),
                (validity.not_after, Standing::Good),
                (validity.not_after + second, Standing::Expired),
            ] {
                assert_eq!(validity.at(now), standing, "{now:?}");
            }
        }
    }

    #[test]
    fn what_is_cut_short_or_garbled_has_no_validity_and_panics_nowhere() {
        let whole = made(2020..2030);
        let (header, rest) = whole.split_at(4);
        assert!(rest.len() > 100);
        for length in 0..whole.len() {
            let cut = &whole[..length];
            assert_eq!(Validity::of(cut), None, "{length}");
        }
        for at in 0..header.len() + 120 {
            for bits in [0x01, 0x80, 0xFF] {
                let mut garbled = whole.clone();
                garbled[at] ^= bits;
                let _ = Validity::of(&garbled);
            }
        }
        assert_eq!(Validity::of(&[SEQUENCE, 0x85, 1, 1, 1, 1, 1]), None);
        assert_eq!(Validity::of(&[SEQUENCE, 0x84, 0xFF, 0xFF, 0xFF, 0xFF]), None);
    }
}
