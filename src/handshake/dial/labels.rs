//! `Holdline-Labels`: the groups that a worker puts its pipe into.
//!
//! `room=a, user=7, vip`: names with a value each, or with none, separated by commas; a value is percent-encoded where it
//! holds a comma, a percent sign or what no header may hold. No client ever sees it.

use holdline_core::labels::{LabelError, Relabel};
use http::{HeaderMap, HeaderName};

use crate::handshake::check::elements;
use crate::routes::percent_decode;

/// What a worker says of the groups that its pipe belongs to; it may be no labels at all.
pub type SaidLabels = Result<Relabel, LabelError>;

static LABELS: HeaderName = HeaderName::from_static("holdline-labels");

/// What all lines of the header say together; nothing if there is none.
pub(super) fn read(headers: &HeaderMap) -> Option<SaidLabels> {
    headers.contains_key(&LABELS).then(|| {
        let mut labels = Relabel::default();
        for element in elements(headers, LABELS.clone()) {
            let text =
                str::from_utf8(element).map_err(|_| LabelError::Name(String::from_utf8_lossy(element).into()))?;
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            let (name, value) = (name.trim_end(), value.trim_start());
            let value = percent_decode(value, false).ok_or_else(|| LabelError::Value(name.to_owned()))?;
            labels.set(name, &value)?;
        }
        Ok(labels)
    })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn said(lines: &[&str]) -> Option<SaidLabels> {
        let lines = lines.iter().map(|line| (LABELS.clone(), HeaderValue::from_bytes(line.as_bytes()).unwrap()));
        read(&lines.collect())
    }

    #[test]
    fn a_worker_names_labels_one_after_the_other() {
        let mut labels = Relabel::default();
        for (name, value) in [("room", "a, b"), ("user", "7"), ("vip", "")] {
            labels.set(name, value).unwrap();
        }
        assert_eq!(said(&["room=a%2C%20b , user = 7,", "vip"]), Some(Ok(labels)));
        assert_eq!(said(&[""]), Some(Ok(Relabel::default())));
        assert_eq!(said(&[]), None);
    }

    #[test]
    fn what_cannot_be_a_label_is_told_by_its_name() {
        assert_eq!(said(&["user=7, room=%zz"]), Some(Err(LabelError::Value("room".into()))));
        assert_eq!(said(&["room=%0A"]), Some(Err(LabelError::Value("room".into()))));
        assert_eq!(said(&["ro om=a"]), Some(Err(LabelError::Name("ro om".into()))));
        assert_eq!(said(&["=a"]), Some(Err(LabelError::Name(String::new()))));
        assert!(matches!(said(&["\u{e9}=a"]), Some(Err(LabelError::Name(_)))));
    }
}
