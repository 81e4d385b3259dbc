//! The way through a certificate's DER, as far as it is walked here (RFC 5280 section 4.1).
//!
//! Signatures are the TLS library's business; what is read here is told to people, or chosen by.

const INTEGER: u8 = 0x02;
pub(super) const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xA0;

/// What stands behind a certificate's issuer: its validity, its subject, and the rest.
pub(super) fn behind_issuer(certificate: &[u8]) -> Option<&[u8]> {
    let (certificate, _) = take(certificate, SEQUENCE)?;
    let (signed, _) = take(certificate, SEQUENCE)?;
    let rest = take(signed, VERSION).map_or(signed, |(_, rest)| rest);
    let (_serial, rest) = take(rest, INTEGER)?;
    let (_algorithm, rest) = take(rest, SEQUENCE)?;
    let (_issuer, rest) = take(rest, SEQUENCE)?;
    Some(rest)
}

/// The content of the element of type `tag` in front, and what is behind it.
pub(super) fn take(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7F => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7F))?;
            (digits.iter().fold(0, |length, &digit| length << 8 | usize::from(digit)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length).filter(|_| found == tag)
}

/// The element in front, whatever its type: that, its content, and what is behind it.
pub(super) fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let tag = *der.first()?;
    let (content, rest) = take(der, tag)?;
    Some((tag, content, rest))
}
