//! Whom a certificate names: its subject alternative names, and its common name (RFC 5280 section 4.2.1.6).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::der::{SEQUENCE, behind_issuer, element, take};

const BOOLEAN: u8 = 0x01;
const OCTET_STRING: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const SET: u8 = 0x31;
const EXTENSIONS: u8 = 0xA3;

/// `id-at-commonName`: 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// `id-ce-subjectAltName`: 2.5.29.17.
const ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1D, 0x11];

const EMAIL: u8 = 0x81;
const DNS_NAME: u8 = 0x82;
const URI: u8 = 0x86;
const ADDRESS: u8 = 0x87;

/// The names of a certificate's owner.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Names {
    /// Hosts, in small letters; `*.` stands for any one label.
    pub hosts: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Other alternative names: mail addresses and URIs.
    pub others: Vec<String>,
    /// The common name of the subject.
    pub common: Option<String>,
}

impl Names {
    /// What the certificate says; nothing if it is none.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let (_validity, rest) = take(behind_issuer(certificate)?, SEQUENCE)?;
        let (subject, rest) = take(rest, SEQUENCE)?;
        let (_key, rest) = take(rest, SEQUENCE)?;
        let mut names = Self { common: common_name(subject), ..Self::default() };
        let mut alternatives = alternative_names(rest).unwrap_or_default();
        while let Some((kind, name, behind)) = element(alternatives) {
            names.add(kind, name);
            alternatives = behind;
        }
        Some(names)
    }

    /// The first alternative name, as text.
    #[must_use]
    pub fn first(&self) -> Option<String> {
        let host = self.hosts.first().or(self.others.first()).cloned();
        host.or_else(|| self.addresses.first().map(ToString::to_string))
    }

    /// Whether there is no alternative name: no client believes a certificate by its common name alone.
    #[must_use]
    pub fn are_missing(&self) -> bool {
        self.hosts.is_empty() && self.addresses.is_empty()
    }

    fn add(&mut self, kind: u8, name: &[u8]) {
        let text = || std::str::from_utf8(name).ok().filter(|text| text.chars().all(|c| c.is_ascii_graphic()));
        match kind {
            DNS_NAME => self.hosts.extend(text().map(str::to_ascii_lowercase)),
            EMAIL | URI => self.others.extend(text().map(str::to_owned)),
            ADDRESS => {
                let four = <[u8; 4]>::try_from(name).map(|octets| IpAddr::V4(Ipv4Addr::from(octets)));
                let sixteen = || <[u8; 16]>::try_from(name).map(|octets| IpAddr::V6(Ipv6Addr::from(octets)));
                self.addresses.extend(four.or_else(|_| sixteen()));
            }
            _ => {}
        }
    }
}

/// The last common name of a subject, if it is text that may stand anywhere.
fn common_name(mut subject: &[u8]) -> Option<String> {
    let mut found = None;
    while let Some((set, rest)) = take(subject, SET) {
        let name = take(set, SEQUENCE).and_then(|(pair, _)| take(pair, OBJECT_ID));
        if let Some((COMMON_NAME, value)) = name {
            found = element(value).and_then(|(_, text, _)| String::from_utf8(text.to_vec()).ok());
        }
        subject = rest;
    }
    found.filter(|name| !name.is_empty() && !name.chars().any(char::is_control))
}

/// The list of alternative names, out of what stands behind a certificate's key.
fn alternative_names(mut behind_key: &[u8]) -> Option<&[u8]> {
    // Unique identifiers may stand before the extensions.
    let mut extensions = loop {
        let (kind, content, rest) = element(behind_key)?;
        if kind == EXTENSIONS {
            break take(content, SEQUENCE)?.0;
        }
        behind_key = rest;
    };
    while let Some((extension, rest)) = take(extensions, SEQUENCE) {
        let (id, value) = take(extension, OBJECT_ID)?;
        if id == ALTERNATIVE_NAME {
            let value = take(value, BOOLEAN).map_or(value, |(_critical, rest)| rest);
            return Some(take(take(value, OCTET_STRING)?.0, SEQUENCE)?.0);
        }
        extensions = rest;
    }
    None
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn alternative_names_of_each_kind_and_the_common_name_are_read() {
        let names = ["a.example", "*.B.example", "192.0.2.7", "2001:db8::1"].map(str::to_owned);
        let mut parameters = CertificateParams::new(names.to_vec()).unwrap();
        parameters.subject_alt_names.push(SanType::URI("spiffe://example/phone".try_into().unwrap()));
        parameters.distinguished_name.push(DnType::CommonName, "phone 7");
        let certificate = parameters.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let names = Names::of(certificate.der()).unwrap();
        assert_eq!(names.hosts, ["a.example", "*.b.example"]);
        assert_eq!(names.addresses, ["192.0.2.7".parse::<IpAddr>().unwrap(), "2001:db8::1".parse().unwrap()]);
        assert_eq!(names.others, ["spiffe://example/phone"]);
        assert_eq!((names.common.as_deref(), names.first().as_deref()), (Some("phone 7"), Some("a.example")));
        for cut in 0..certificate.der().len() {
            // It says something or nothing, and never panics.
            let _ = Names::of(&certificate.der()[..cut]);
        }
        let bare = CertificateParams::default().self_signed(&KeyPair::generate().unwrap()).unwrap();
        assert!(Names::of(bare.der()).unwrap().are_missing());
    }
}
