//! Tables for people: aligned columns, nothing else.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use crate::log::escaped;

/// The widest cell; longer ones are cut.
const CELL_CHARS_MAX: usize = 60;

/// A column: its heading and the JSON pointer of its cell in each item.
pub(super) type Column = (&'static str, &'static str);

/// The items as lines under a heading; only the heading if there are none.
pub(super) fn render(columns: &[Column], items: &[Value]) -> String {
    let mut rows = vec![columns.iter().map(|(heading, _)| (*heading).to_owned()).collect::<Vec<_>>()];
    rows.extend(items.iter().map(|item| columns.iter().map(|(_, at)| short(at, item.pointer(at))).collect()));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// One object as `name  value` lines, nested names joined by dots.
pub(super) fn describe(object: &Value) -> String {
    let mut lines = Vec::new();
    flatten("", object, &mut lines);
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    lines.into_iter().map(|(name, value)| format!("{name:<width$}  {value}\n")).collect()
}

fn flatten(name: &str, value: &Value, lines: &mut Vec<(String, String)>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (field, value) in fields {
                let field = escaped(field);
                let name = if name.is_empty() { field } else { format!("{name}.{field}") };
                flatten(&name, value, lines);
            }
        }
        Value::Array(items) if items.iter().any(Value::is_object) => {
            for (index, item) in items.iter().enumerate() {
                flatten(&format!("{name}[{index}]"), item, lines);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
            let readable =
                if is_large(name, value) { format!(" ({})", short(name, Some(value))) } else { String::new() };
            lines.push((name.to_owned(), cell(Some(value)) + &readable));
        }
    }
}

/// Whether it is a number of bytes too long to read at a glance.
fn is_large(name: &str, value: &Value) -> bool {
    name.ends_with("_bytes") && value.as_u64().is_some_and(|count| count >= 1024)
}

/// A cell in a table: by the unit in its name, a size as people read it, and a time to the second.
fn short(name: &str, value: Option<&Value>) -> String {
    match value {
        Some(Value::Number(count)) if name.ends_with("_bytes") => count.as_u64().map_or_else(String::new, bytes),
        Some(Value::Number(count)) if name.ends_with("bytes_per_second") => {
            count.as_u64().map_or_else(String::new, |count| bytes(count) + "/s")
        }
        Some(Value::Number(percent)) if name.ends_with("_percent") => format!("{percent} %"),
        Some(Value::String(at)) if name.ends_with("_at") || name.ends_with("/at") => to_the_second(&escaped(at)),
        Some(Value::Object(keys)) if name.ends_with("/serves") => owned(keys),
        other => cell(other),
    }
}

/// The keys that a backend owns, each with the alias that it has for it; without any it takes every key.
fn owned(keys: &Map<String, Value>) -> String {
    if keys.is_empty() {
        return "any".to_owned();
    }
    let pair = |(key, alias): (&String, &Value)| match alias.as_str() {
        Some(alias) if alias != key => format!("{key}={alias}"),
        Some(_) | None => key.clone(),
    };
    cell(Some(&Value::Array(keys.iter().map(pair).map(Value::String).collect())))
}

/// `1.5 MiB`.
#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
pub(super) fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "KiB", "MiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{count} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} GiB")
}

/// An RFC 3339 time in UTC without its fraction.
pub(super) fn to_the_second(at: &str) -> String {
    at.split_once('.').map_or_else(|| at.to_owned(), |(seconds, _)| format!("{seconds}Z"))
}

/// The same with milliseconds, for what comes thick and fast.
pub(super) fn to_the_millisecond(at: &str) -> String {
    let Some((seconds, rest)) = at.split_once('.') else { return at.to_owned() };
    format!("{seconds}.{:0<3.3}Z", rest.trim_end_matches('Z'))
}

fn cell(value: Option<&Value>) -> String {
    let text = match value {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => escaped(text),
        Some(Value::Bool(yes)) => if *yes { "yes" } else { "no" }.to_owned(),
        Some(Value::Array(items)) if items.is_empty() => "-".to_owned(),
        Some(Value::Object(fields)) if fields.is_empty() => "-".to_owned(),
        Some(Value::Array(items)) => items.iter().map(|item| cell(Some(item))).collect::<Vec<_>>().join(","),
        Some(other @ (Value::Number(_) | Value::Object(_))) => escaped(&other.to_string()),
    };
    if text.chars().count() <= CELL_CHARS_MAX {
        return text;
    }
    text.chars().take(CELL_CHARS_MAX - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_are_aligned_and_cells_cannot_draw() {
        let items = [json!({"id": "a", "n": {"x": 1}, "ok": true}), json!({"id": "long\x1b[2J", "n": {}, "ok": false})];
        let text = render(&[("ID", "/id"), ("X", "/n/x"), ("OK", "/ok")], &items);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines, ["ID             X  OK", "a              1  yes", r"long\u{1b}[2J  -  no"]);
    }

    #[test]
    fn a_unit_in_a_name_is_a_unit_in_its_cell() {
        let items = [
            json!({"a_bytes": 1536, "b_percent": 12, "at": "2026-11-21T10:13:37.123456Z", "c_bytes": null, "bytes_per_second": 2048}),
        ];
        let text = render(
            &[("A", "/a_bytes"), ("B", "/b_percent"), ("AT", "/at"), ("C", "/c_bytes"), ("R", "/bytes_per_second")],
            &items,
        );
        assert_eq!(text.lines().nth(1), Some("1.5 KiB  12 %  2026-11-21T10:13:37Z  -  2.0 KiB/s"));
    }

    #[test]
    fn a_backend_that_names_no_keys_takes_any_and_an_alias_stands_behind_its_key() {
        let items = [json!({"serves": {}}), json!({"serves": {"phone": "7f3a", "s1": "s1", "s2": null}})];
        let text = render(&[("SERVES", "/serves")], &items);
        assert_eq!(text.lines().collect::<Vec<_>>(), ["SERVES", "any", "phone=7f3a,s1,s2"]);
    }

    #[test]
    fn an_object_reads_as_names_and_values() {
        let object = json!({"id": "a", "up": {"lost": 0}, "list": [{"b": null}], "keys": ["x", "y"], "m_bytes": 2048});
        let text = "id         a\nkeys       x,y\nlist[0].b  -\nm_bytes    2048 (2.0 KiB)\nup.lost    0\n";
        assert_eq!(describe(&object), text);
    }
}
