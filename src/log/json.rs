//! Records as JSON: one flat object a line, written field by field without a value in between.

use std::fmt::{self, Write as _};

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::stamp;

/// `{"timestamp":"…","level":"INFO","message":"…","target":"…"}` with the record's fields.
pub(super) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut line = String::with_capacity(LINE_BYTES);
        line.push_str("{\"timestamp\":\"");
        stamp::push_now(&mut line);
        line.push_str("\",\"level\":\"");
        line.push_str(event.metadata().level().as_str());
        line.push('"');
        event.record(&mut Fields { line: &mut line });
        line.push_str(",\"target\":");
        quote(&mut line, event.metadata().target());
        line.push_str("}\n");
        writer.write_str(&line)
    }
}

/// Room that most lines find enough.
const LINE_BYTES: usize = 384;

struct Fields<'a> {
    line: &'a mut String,
}

impl Fields<'_> {
    fn name(&mut self, field: &Field) {
        self.line.push_str(",\"");
        // A name of Rust's needs no escape; one that is a keyword there is written r#type.
        self.line.push_str(field.name().strip_prefix("r#").unwrap_or(field.name()));
        self.line.push_str("\":");
    }

    fn plain(&mut self, field: &Field, value: fmt::Arguments<'_>) {
        self.name(field);
        // Writing into a string cannot fail.
        let _ = self.line.write_fmt(value);
    }
}

impl Visit for Fields<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.name(field);
        quote(self.line, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.plain(field, format_args!("{value}"));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.plain(field, format_args!("{value}"));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.plain(field, format_args!("{value}"));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        if value.is_finite() {
            self.plain(field, format_args!("{value:?}"));
        } else {
            self.plain(field, format_args!("null"));
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.name(field);
        self.line.push('"');
        let _ = write!(Escaping(self.line), "{value:?}");
        self.line.push('"');
    }
}

/// Appends `text` as a JSON string.
fn quote(line: &mut String, text: &str) {
    line.push('"');
    escape(line, text);
    line.push('"');
}

/// RFC 8259 section 7.
fn escape(line: &mut String, text: &str) {
    let mut rest = text;
    while let Some(at) = first_to_escape(rest.as_bytes()) {
        line.push_str(&rest[..at]);
        match rest.as_bytes()[at] {
            b'"' => line.push_str("\\\""),
            b'\\' => line.push_str("\\\\"),
            b'\n' => line.push_str("\\n"),
            b'\r' => line.push_str("\\r"),
            b'\t' => line.push_str("\\t"),
            // Writing into a string cannot fail.
            byte => drop(write!(line, "\\u{byte:04x}")),
        }
        rest = &rest[at + 1..];
    }
    line.push_str(rest);
}

/// Where the first byte stands that may not stand as it is. Eight at a time: nearly all lines have none.
fn first_to_escape(bytes: &[u8]) -> Option<usize> {
    let chunks = bytes.chunks_exact(8);
    let is_plain = |chunk: &[u8]| chunk.try_into().is_ok_and(|eight| needs_no_escape(u64::from_le_bytes(eight)));
    let plain = chunks.take_while(|chunk| is_plain(chunk)).count() * 8;
    let at = bytes[plain..].iter().position(|byte| matches!(byte, 0..0x20 | b'"' | b'\\'))?;
    Some(plain + at)
}

/// Whether none of eight bytes is a control character, a quotation mark or a backslash.
const fn needs_no_escape(eight: u64) -> bool {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = EACH * 0x80;
    // The highest bit of each byte that is less than `least`, and perhaps of others behind it.
    const fn below(eight: u64, least: u64) -> u64 {
        eight.wrapping_sub(EACH * least) & !eight
    }
    let quotes = eight ^ (EACH * b'"' as u64);
    let backslashes = eight ^ (EACH * b'\\' as u64);
    (below(eight, 0x20) | below(quotes, 1) | below(backslashes, 1)) & HIGH == 0
}

struct Escaping<'a>(&'a mut String);

impl fmt::Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(self.0, text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_escaped_is_found_wherever_it_stands() {
        for byte in 0..=255 {
            for at in 0..20 {
                let mut bytes = [b'a'; 20];
                bytes[at] = byte;
                let wanted = matches!(byte, 0..0x20 | b'"' | b'\\').then_some(at);
                assert_eq!(first_to_escape(&bytes), wanted, "{byte} at {at}");
            }
        }
    }

    #[test]
    fn a_string_is_what_a_json_parser_reads_back() {
        for text in ["", "plain", "\"quoted\\", "a\nb\r\t\u{1}\u{1f}\u{7f}\u{9b}é\u{2028}😀", "\0"] {
            let mut line = String::new();
            quote(&mut line, text);
            assert_eq!(serde_json::from_str::<String>(&line).unwrap(), text);
            assert!(!line.contains('\n'));
        }
    }
}
