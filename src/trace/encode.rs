//! Spans as OTLP says them.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span};
use prost::Message;

use super::span::{Name, Record, Value};

/// The body of one export.
pub(super) fn request(records: &[Record]) -> Vec<u8> {
    let resource = Resource {
        attributes: vec![
            attribute("service.name", &"holdline".into()),
            attribute("service.version", &env!("CARGO_PKG_VERSION").into()),
        ],
        ..Resource::default()
    };
    let scope = InstrumentationScope {
        name: "holdline".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let scope_spans =
        ScopeSpans { scope: Some(scope), spans: records.iter().map(span).collect(), ..ScopeSpans::default() };
    let spans = ResourceSpans { resource: Some(resource), scope_spans: vec![scope_spans], ..ResourceSpans::default() };
    ExportTraceServiceRequest { resource_spans: vec![spans] }.encode_to_vec()
}

/// How many spans an answer says were rejected; none if it says nothing that can be read.
pub(super) fn rejected(answer: &[u8]) -> u64 {
    let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
    answer.partial_success.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0))
}

fn span(record: &Record) -> Span {
    Span {
        trace_id: record.context.trace.as_bytes().to_vec(),
        span_id: record.context.span.as_bytes().to_vec(),
        parent_span_id: record.parent.map(|parent| parent.as_bytes().to_vec()).unwrap_or_default(),
        name: record.name.as_str().to_owned(),
        kind: kind(record.name) as i32,
        start_time_unix_nano: nanos(record.began),
        end_time_unix_nano: nanos(record.began + record.took),
        attributes: record.attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
        status: record
            .failure
            .as_ref()
            .map(|why| Status { message: why.as_ref().to_owned(), code: StatusCode::Error as i32 }),
        ..Span::default()
    }
}

const fn kind(name: Name) -> span::SpanKind {
    match name {
        Name::Handshake => span::SpanKind::Server,
        Name::Attach => span::SpanKind::Client,
        Name::Reattach => span::SpanKind::Internal,
    }
}

fn nanos(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

fn attribute(name: &str, value: &Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text.as_ref().to_owned()),
        Value::Number(number) => any_value::Value::IntValue(*number),
    };
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
