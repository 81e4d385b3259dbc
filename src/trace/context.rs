//! W3C Trace Context: which trace a request belongs to, and how the next hop is told.
//!
//! Refuses what the recommendation (<https://www.w3.org/TR/trace-context/>, section 3.2) calls invalid: such a request
//! begins a trace of its own.

use http::{HeaderMap, HeaderName};

/// The header that names a trace and the span that the next one is a child of.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What tracing systems say to each other about a trace; it means nothing beside a `traceparent` that it did not come with.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The name of a trace; never all zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TraceId([u8; 16]);

/// The name of a span; never all zero.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpanId([u8; 8]);

impl TraceId {
    pub(super) fn random() -> Self {
        Self(rand::random::<u128>().max(1).to_be_bytes())
    }

    pub(super) const fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl SpanId {
    pub(super) fn random() -> Self {
        Self(rand::random::<u64>().max(1).to_be_bytes())
    }

    pub(super) const fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// A span, as those below it name it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Context {
    /// Its trace.
    pub trace: TraceId,
    /// The span itself.
    pub span: SpanId,
}

impl Context {
    /// The value of a `traceparent` that makes the next hop its child.
    #[must_use]
    pub fn traceparent(&self) -> String {
        let (trace, span) = (u128::from_be_bytes(self.trace.0), u64::from_be_bytes(self.span.0));
        format!("00-{trace:032x}-{span:016x}-01")
    }
}

/// What a request says about its trace.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Caller {
    /// Nothing that can be read.
    Silent,
    /// It is a part of this one.
    Traced(Context),
    /// It is a part of one that is not recorded.
    Unsampled,
}

impl Caller {
    /// Reads the headers of a request.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(TRACEPARENT).iter();
        match (values.next(), values.next()) {
            (Some(only), None) => only.to_str().ok().and_then(parse).unwrap_or(Self::Silent),
            (Some(_), Some(_)) | (None, _) => Self::Silent,
        }
    }
}

/// `version "-" trace-id "-" parent-id "-" flags`, and behind a version that is not ours whatever it adds.
fn parse(value: &str) -> Option<Caller> {
    let mut fields = value.split('-');
    let [version, trace, span, flags] = [fields.next()?, fields.next()?, fields.next()?, fields.next()?];
    let [version] = hex::<1>(version)?;
    let context = Context { trace: TraceId(hex(trace)?), span: SpanId(hex(span)?) };
    let [flags] = hex::<1>(flags)?;
    let is_zero = context.trace.0 == [0; 16] || context.span.0 == [0; 8];
    if version == 0xff || (version == 0 && fields.next().is_some()) || is_zero {
        return None;
    }
    Some(if flags & 1 == 1 { Caller::Traced(context) } else { Caller::Unsampled })
}

/// Exactly so many bytes in lower case.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if text.len() != 2 * N || !text.bytes().all(is_hex) {
        return None;
    }
    let mut bytes = [0; N];
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    fn caller(values: &[&str]) -> Caller {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(TRACEPARENT, value.parse().unwrap());
        }
        Caller::of(&headers)
    }

    #[test]
    fn a_traceparent_is_read_and_written() {
        let value = format!("00-{TRACE}-{SPAN}-01");
        let Caller::Traced(context) = caller(&[&value]) else { panic!("not read") };
        assert_eq!(context.traceparent(), value);
        assert_eq!(caller(&[&format!("00-{TRACE}-{SPAN}-00")]), Caller::Unsampled);
        assert_eq!(caller(&[&format!("cc-{TRACE}-{SPAN}-01-more")]), Caller::Traced(context), "a later version");
        assert_eq!(caller(&[&format!("00-{TRACE}-{SPAN}-03")]), Caller::Traced(context), "flags that we don't know");
    }

    #[test]
    fn what_is_invalid_says_nothing() {
        let good = format!("00-{TRACE}-{SPAN}-01");
        for bad in [
            "",
            "00",
            &format!("ff-{TRACE}-{SPAN}-01"),
            &format!("00-{TRACE}-{SPAN}"),
            &format!("00-{TRACE}-{SPAN}-01-more"),
            &format!("00-{}-{SPAN}-01", "0".repeat(32)),
            &format!("00-{TRACE}-{}-01", "0".repeat(16)),
            &good.to_uppercase(),
            &good.replace('a', "é"),
            &format!("00-{}-{SPAN}-01", &TRACE[1..]),
        ] {
            assert_eq!(caller(&[bad]), Caller::Silent, "{bad}");
        }
        assert_eq!(caller(&[]), Caller::Silent);
        assert_eq!(caller(&[&good, &good]), Caller::Silent, "which of them?");
    }
}
