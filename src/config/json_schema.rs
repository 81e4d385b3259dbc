//! The keys as a JSON Schema, for editors: what a file may say, what each key is for, and its default.
//!
//! It comes from the same table that reads the file. It may take what reading refuses, such as a route to a pool that is
//! not there; what it refuses, reading refuses too.

use serde_json::{Map, Value, json};

use super::Config;
use super::schema::{Key, Table};

impl Config {
    /// The JSON Schema (draft 7) of a configuration file.
    #[must_use]
    pub fn json_schema() -> Value {
        let mut schema = table::<Self>();
        schema["$schema"] = json!("http://json-schema.org/draft-07/schema#");
        schema["title"] = json!("Holdline");
        schema
    }
}

/// The schema of one kind of table.
pub(super) fn table<T: Table>() -> Value {
    let schema = T::schema();
    let mut whole = object();
    let mut defaults = T::default();
    for key in &schema.keys {
        let (inside, name) = match key.name.rsplit_once('.') {
            Some((sections, name)) => (sections.split('.').fold(&mut whole, section), name),
            None => (&mut whole, key.name),
        };
        inside["properties"][name] = described(key, &mut defaults);
        if key.required {
            let required = inside.as_object_mut().map(|inside| inside.entry("required").or_insert_with(|| json!([])));
            required.and_then(Value::as_array_mut).into_iter().for_each(|names| names.push(json!(name)));
        }
    }
    for rows in &schema.rows {
        whole["properties"][rows.name] = json!({ "type": "array", "items": (rows.form)() });
    }
    whole
}

fn object() -> Value {
    json!({ "type": "object", "properties": {}, "additionalProperties": false })
}

/// The table `name` in a table.
fn section<'a>(within: &'a mut Value, name: &str) -> &'a mut Value {
    let section = &mut within["properties"][name];
    if section.is_null() {
        *section = object();
    }
    section
}

fn described<T>(key: &Key<T>, defaults: &mut T) -> Value {
    let mut form = match (key.form)() {
        Value::Object(form) => form,
        other => Map::from_iter([("allOf".to_owned(), json!([other]))]),
    };
    form.insert("description".to_owned(), json!(key.why));
    let default = (key.show)(defaults).filter(|_| key.sample.is_none());
    if let Some(default) = default.as_deref().and_then(value) {
        form.insert("default".to_owned(), default);
    }
    if let Some(sample) = key.sample.and_then(value) {
        form.insert("examples".to_owned(), json!([sample]));
    }
    Value::Object(form)
}

/// A TOML value as JSON.
fn value(text: &str) -> Option<Value> {
    let mut table: toml::Table = format!("value = {text}").parse().ok()?;
    serde_json::to_value(table.remove("value")?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::schema::every_key;

    /// What the schema says of a key such as `pools[].health.kind`.
    fn of<'a>(schema: &'a Value, pattern: &str) -> &'a Value {
        let parts = pattern.split('.');
        parts.fold(schema, |at, part| match part.strip_suffix("[]") {
            Some(list) => &at["properties"][list]["items"],
            None => &at["properties"][part],
        })
    }

    #[test]
    fn every_key_is_there_with_why_it_is_and_its_default() {
        let schema = Config::json_schema();
        for key in every_key() {
            let said = of(&schema, &key.pattern);
            assert_eq!(said["description"], key.why, "{}", key.pattern);
            let shown = key.value.as_deref().filter(|_| key.sample.is_none());
            assert_eq!(said.get("default").cloned(), shown.and_then(value), "{}", key.pattern);
        }
        assert_eq!(
            schema["properties"]["pools"]["items"]["properties"]["backends"]["items"]["required"],
            json!(["url"])
        );
    }

    #[test]
    fn a_value_is_of_a_kind_and_no_other_key_is_let_in() {
        let schema = Config::json_schema();
        assert_eq!(of(&schema, "replay.policy")["enum"], json!(["unsent", "unconfirmed", "none"]));
        assert_eq!(of(&schema, "server.http2")["type"], "boolean");
        assert_eq!(of(&schema, "server.threads")["type"], "integer");
        for table in [&schema, of(&schema, "server"), of(&schema, "pools[]"), of(&schema, "pools[].health")] {
            assert_eq!(table["additionalProperties"], false, "{table}");
        }
    }
}
