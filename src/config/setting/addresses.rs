//! How addresses, networks and URLs are read and written.
//!
//! A URL may hold a password, so no message here repeats one.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::json;

use super::{Fault, Form, Setting, basic, fault, parsed, quoted, string, wants};
use crate::callout::CalloutUrl;
use crate::config::collector::OtlpEndpoint;
use crate::config::node::Node;
use crate::config::types::Listen;
use crate::net::{BackendUrl, UrlError};
use crate::routes::HostRule;

impl Setting for IpNet {
    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        const WANTED: &str = "an address or network such as \"10.0.0.0/8\" or \"::1\"";
        let text = string(node, WANTED)?;
        let net = text.parse().or_else(|_| text.parse::<IpAddr>().map(Self::from));
        let Ok(net) = net else {
            return wants(node, WANTED);
        };
        Ok(net.trunc())
    }

    fn show(&self) -> Option<String> {
        Some(quoted(&self.to_string()))
    }

    fn form() -> Form {
        json!({ "type": "string" })
    }

    fn doubts(node: &Node) -> Vec<Fault> {
        let written = node.text().and_then(|text| Some((text, text.parse::<IpNet>().ok()?)));
        let Some((text, net)) = written.filter(|(_, net)| net.trunc() != *net) else { return Vec::new() };
        let (whole, one) = (net.trunc(), net.addr());
        let message =
            format!("{} is the whole network {whole}; write that, or \"{one}\" for the one address", quoted(text));
        vec![(node.place.clone(), message)]
    }
}

impl Setting for Listen {
    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        parsed(node, "an address and a port, or \"unix:PATH\"")
    }

    fn show(&self) -> Option<String> {
        self.to_string().show()
    }

    fn form() -> Form {
        json!({ "type": "string", "pattern": "^(unix:.+|.+:[0-9]+)$" })
    }
}

impl Setting for BackendUrl {
    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        // The value may hold a password, so no message of ours repeats it.
        let text = string(node, "a URL such as \"ws://127.0.0.1:9001\"")?;
        text.parse().or_else(|error: UrlError| fault(node, error.to_string()))
    }

    fn show(&self) -> Option<String> {
        Some(basic(&self.to_string()))
    }

    fn form() -> Form {
        json!({ "type": "string", "pattern": "^(ws://|wss://|unix:/)" })
    }
}

impl Setting for OtlpEndpoint {
    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        // As with a backend's: what was written may hold a password.
        let text = string(node, "a collector's URL such as \"http://127.0.0.1:4318\"")?;
        text.parse().or_else(|error: &str| fault(node, error.to_owned()))
    }

    fn show(&self) -> Option<String> {
        self.to_string().show()
    }

    fn form() -> Form {
        json!({ "type": "string", "pattern": "^http://" })
    }
}

impl Setting for CalloutUrl {
    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        // As with a backend's: what was written may hold a password.
        let text = string(node, "a URL such as \"https://auth.internal/check\"")?;
        text.parse().or_else(|error: String| fault(node, error))
    }

    fn show(&self) -> Option<String> {
        self.to_string().show()
    }

    fn form() -> Form {
        json!({ "type": "string", "pattern": "^https?://" })
    }
}

impl Setting for HostRule {
    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        let text = string(node, "\"client\", \"backend\" or a host")?;
        Self::parse(text).or_else(|why| fault(node, format!("cannot use {}; {why}", quoted(text))))
    }

    fn show(&self) -> Option<String> {
        Some(quoted(self.as_str()))
    }

    fn form() -> Form {
        json!({ "type": "string" })
    }
}
