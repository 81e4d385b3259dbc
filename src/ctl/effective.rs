//! `holdline ctl config show`: the effective configuration as a file would say it, each value with where it was written.
//!
//! Keys stand in the order of the schema; those without a place have their defaults.

use std::fmt::Write as _;

use serde_json::Value;

use crate::config::Config;
use crate::log::escaped;

/// What the admin API says of the configuration, as TOML.
pub(super) fn toml(effective: &Value) -> String {
    let known = Config::known_keys();
    let keys: Vec<&str> = known.iter().map(|key| key.key.as_str()).collect();
    let mut out = Printer { sources: &effective["sources"], text: String::new() };
    out.sections(&keys, effective);
    out.lists(&keys, effective, "", "");
    out.text
}

struct Printer<'a> {
    sources: &'a Value,
    text: String,
}

impl Printer<'_> {
    /// The tables that are there once.
    fn sections(&mut self, keys: &[&str], effective: &Value) {
        let mut heading = "";
        for key in keys.iter().filter(|key| !key.contains('[')) {
            let Some((section, name)) = key.split_once('.') else { continue };
            let Some(value) = at(effective, key) else { continue };
            if heading != section {
                heading = section;
                self.heading(&format!("[{section}]"));
            }
            self.line(name, value, key);
        }
    }

    /// The lists of tables among `keys`, which count from the table at `path` on, whose heading is `header`.
    fn lists(&mut self, keys: &[&str], table: &Value, path: &str, header: &str) {
        let mut names: Vec<&str> = keys.iter().filter_map(|key| Some(key.split_once("[0].")?.0)).collect();
        names.dedup();
        for name in names {
            let prefix = format!("{name}[0].");
            let inside: Vec<&str> = keys.iter().filter_map(|key| key.strip_prefix(prefix.as_str())).collect();
            for (index, row) in table[name].as_array().into_iter().flatten().enumerate() {
                let (here, header) = (format!("{path}{name}[{index}]."), format!("{header}{name}"));
                self.heading(&format!("[[{header}]]"));
                for key in inside.iter().filter(|key| !key.contains('[')) {
                    if let Some(value) = at(row, key) {
                        self.line(key, value, &format!("{here}{key}"));
                    }
                }
                self.lists(&inside, row, &here, &format!("{header}."));
            }
        }
    }

    fn heading(&mut self, heading: &str) {
        let gap = if self.text.is_empty() { "" } else { "\n" };
        let _ = writeln!(self.text, "{gap}{heading}");
    }

    fn line(&mut self, name: &str, value: &Value, path: &str) {
        let _ = writeln!(self.text, "{name} = {}{}", inline(value), self.place(path));
    }

    /// `  # proxy.toml:12`, or the variable.
    fn place(&self, path: &str) -> String {
        let source = &self.sources["keys"][path];
        match (source["line"].as_u64(), source["variable"].as_str()) {
            (Some(line), _) => format!("  # {}:{line}", escaped(self.sources["file"].as_str().unwrap_or("file"))),
            (None, Some(variable)) => format!("  # {}", escaped(variable)),
            (None, None) => String::new(),
        }
    }
}

/// What stands at a dotted key.
fn at<'a>(table: &'a Value, key: &str) -> Option<&'a Value> {
    key.split('.').try_fold(table, |at, name| at.get(name)).filter(|value| !value.is_null())
}

/// A value as TOML, on one line. What JSON escapes in strings and names, TOML escapes too, save DEL.
fn inline(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(fields) if fields.is_empty() => "{}".to_owned(),
        Value::Object(fields) => {
            let pair = |(name, value): (&String, &Value)| format!("{} = {}", bare(name), inline(value));
            format!("{{ {} }}", fields.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
        Value::String(_) => value.to_string().replace('\u{7f}', "\\u007f"),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// A name, in quotes if it needs them.
fn bare(name: &str) -> String {
    let is_bare = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if is_bare { name.to_owned() } else { inline(&Value::from(name)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const FILE: &str = "[server]\nlisten = [\"127.0.0.1:1\"]\n[[pools]]\nname = \"a\"\n[[pools.backends]]\nurl = \"ws://x:1\"\n\
                        labels = { \"a b\" = \"1\", c = \"2\" }\n[[routes]]\npool = \"a\"\nheaders.request.set = { x = \"y\" }\n";

    #[test]
    fn what_is_shown_is_a_file_that_means_the_same() {
        let config = Config::read(Some(("proxy.toml", FILE)), []).unwrap().config;
        let mut effective = config.to_json();
        effective["sources"] = json!({"file": "proxy.toml", "keys": {
            "server.listen": {"line": 2}, "pools[0].backends[0].url": {"line": 6}, "log.level": {"variable": "HOLDLINE_LOG__LEVEL"},
        }});
        let shown = toml(&effective);
        let again = Config::read(Some(("shown", &shown)), []).unwrap_or_else(|invalid| panic!("{shown}\n{invalid}"));
        assert_eq!(again.config, config);
        for line in [
            "listen = [\"127.0.0.1:1\"]  # proxy.toml:2\n",
            "\n[[pools.backends]]\nurl = \"ws://x:1\"  # proxy.toml:6\n",
            "level = \"info\"  # HOLDLINE_LOG__LEVEL\n",
            "labels = { \"a b\" = \"1\", c = \"2\" }\n",
            "\npolicy = ",
        ] {
            assert!(shown.contains(line), "{line}: {shown}");
        }
    }
}
