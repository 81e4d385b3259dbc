//! Certificates made for the test, from their files to the one that a client is shown.

use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{CertificateParams, KeyPair};
use rustls::crypto::ring;
use tempfile::TempDir;

use super::certificate::Certificate;
use super::chooser::{Candidates, Chooser};
use super::set::{Contents, Spec, TlsSet};
use crate::config::{CertificateFiles, ClientAuth, ServerTls};
use crate::net::FileText;

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der))
}

/// The files of a certificate with these names.
fn files(directory: &TempDir, names: &[&str]) -> CertificateFiles {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let key = KeyPair::generate().unwrap();
    let made = CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let write = |name: &str, text: String| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    CertificateFiles {
        client_auth: None,
        cert: write("cert.pem", pem("CERTIFICATE", made.der())),
        key: write("key.pem", pem("PRIVATE KEY", &key.serialize_der())),
    }
}

/// A certificate with these names.
fn certificate(names: &[&str]) -> Certificate {
    let directory = tempfile::tempdir().unwrap();
    let files = files(&directory, names);
    let text = |path| FileText::read("server.tls.certificates", path).unwrap();
    let (cert, key) = (text(&files.cert), text(&files.key));
    Certificate::new(&cert, &key, ClientAuth::Off, &ring::default_provider(), SystemTime::now()).unwrap().0
}

#[test]
fn a_set_is_made_only_of_what_is_good_as_a_whole() {
    let (good, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (good, other) = (files(&good, &["a.example"]), files(&other, &["b.example"]));
    let read = |certificates: &[CertificateFiles]| {
        let tls = ServerTls { certificates: certificates.to_vec(), ..ServerTls::default() };
        let spec = Spec::of_server(&tls, false).unwrap();
        TlsSet::new(&spec, &Contents::read(&spec)?, SystemTime::now(), None)
    };
    let crossed = CertificateFiles { cert: good.cert.clone(), ..other.clone() };
    let faults = read(&[good.clone(), crossed, other.clone()]).unwrap_err();
    assert_eq!(faults.len(), 1);
    assert!(faults[0].message.contains("it is not the key of the certificate"), "{}", faults[0].message);
    let text = std::fs::read_to_string(&good.cert).unwrap();
    std::fs::write(&good.cert, &text[..text.len() / 2]).unwrap();
    let faults = read(&[good.clone(), other]).unwrap_err();
    assert!(faults[0].message.contains("it is not PEM, or damaged"), "{}", faults[0].message);
    std::fs::write(&good.cert, text).unwrap();
    let (set, concerns) = read(&[good]).unwrap();
    assert_eq!(set.certificates[0].fingerprint.len(), 64);
    // What a test writes may be readable by all, which is a concern.
    assert!(concerns.iter().all(|concern| concern.message.contains("chmod o-r")), "{concerns:?}");
}

#[test]
fn a_name_finds_its_own_certificate_and_a_wildcard_stands_for_one_label() {
    let names: [&[&str]; 3] = [&["default.example"], &["*.a.example"], &["b.a.example", "192.0.2.1"]];
    let certificates = names.map(certificate);
    let (lenient, strict) = (Chooser::new(&certificates, false), Chooser::new(&certificates, true));
    let at = |found: Option<&Candidates>| {
        let first = found?.keys.first()?;
        certificates.iter().position(|certificate| Arc::ptr_eq(&certificate.key, first))
    };
    for (name, expected) in [
        (Some("default.example"), Some(0)),
        (Some("x.a.example"), Some(1)),
        (Some("b.a.example"), Some(2)),
        (Some("x.b.a.example"), None),
        (Some("a.example"), None),
        (Some("example"), None),
        (Some("192.0.2.1"), None),
        (None, None),
    ] {
        assert_eq!(at(strict.find(name)), expected, "{name:?}");
        assert_eq!(strict.policy(name).is_some(), expected.is_some());
        assert_eq!(at(lenient.find(name)), expected.or(Some(0)), "{name:?}");
    }
}
