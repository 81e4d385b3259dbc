//! How small tables are read and written that are the value of one key.

use std::path::PathBuf;

use serde_json::json;

use super::{Fault, Form, Setting, basic, expanded, fault, quoted, wants};
use crate::config::ended_tls::{CertificateFiles, ClientAuth};
use crate::config::node::Node;
use crate::routes::LearnRule;

impl Setting for LearnRule {
    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        const WANTED: &str = "a table such as { path = \"/api/kernels\", json = \"/id\" }";
        let node = &expanded(node)?;
        let Some(entries) = node.entries() else { return wants(node, WANTED) };
        let (mut path, mut json) = (None, None);
        for entry in entries {
            let place = match entry.name.as_str() {
                "path" => &mut path,
                "json" => &mut json,
                other => return fault(node, format!("unknown key {}; use {WANTED}", quoted(other))),
            };
            *place = Some(String::read(&entry.node)?);
        }
        let (Some(path), Some(json)) = (path, json) else { return wants(node, WANTED) };
        Ok(Self { path, json })
    }

    fn show(&self) -> Option<String> {
        Some(format!("{{ path = {}, json = {} }}", basic(&self.path), basic(&self.json)))
    }

    fn form() -> Form {
        let text = json!({ "type": "string" });
        record(&json!({ "path": text, "json": text }), &["path", "json"])
    }
}

impl Setting for CertificateFiles {
    fn read(node: &Node) -> Result<Self, Vec<Fault>> {
        const WANTED: &str = "a table such as { cert = \"/etc/holdline/tls.pem\", key = \"/etc/holdline/tls.key\" }";
        let node = &expanded(node)?;
        let Some(entries) = node.entries() else { return wants(node, WANTED) };
        let (mut cert, mut key, mut client_auth) = (None, None, None);
        for entry in entries {
            match entry.name.as_str() {
                "cert" => cert = Some(PathBuf::read(&entry.node)?),
                "key" => key = Some(PathBuf::read(&entry.node)?),
                "client_auth" => client_auth = Some(ClientAuth::read(&entry.node)?),
                other => return fault(node, format!("unknown key {}; use {WANTED}", quoted(other))),
            }
        }
        let (Some(cert), Some(key)) = (cert, key) else { return wants(node, WANTED) };
        Ok(Self { cert, key, client_auth })
    }

    fn show(&self) -> Option<String> {
        let text = |path: &PathBuf| path.show().unwrap_or_default();
        let policy = self.client_auth.and_then(|policy| policy.show());
        let policy = policy.map_or(String::new(), |policy| format!(", client_auth = {policy}"));
        Some(format!("{{ cert = {}, key = {}{policy} }}", text(&self.cert), text(&self.key)))
    }

    fn form() -> Form {
        let text = json!({ "type": "string" });
        record(&json!({ "cert": text, "key": text, "client_auth": ClientAuth::form() }), &["cert", "key"])
    }
}

/// A table with these keys and no others, of which some must be there.
fn record(keys: &Form, required: &[&str]) -> Form {
    json!({ "type": "object", "properties": keys, "required": required, "additionalProperties": false })
}
