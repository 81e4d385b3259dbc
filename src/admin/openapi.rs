//! `GET /openapi.json`: the API described by OpenAPI 3.1, made of the table of endpoints and of the types that it reads
//! and writes.
//!
//! What follows from an endpoint's place in the table is not written twice: who may use it, what a body, a query or an
//! id can be refused for. An [`Operation`] adds what only its author knows.

use axum::http::{Method, StatusCode};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::endpoints::Endpoint;
use super::problem::ProblemBody;
use crate::tokens::Access;

/// Where this document is; it does not describe itself.
pub(super) const PATH: &str = "/openapi.json";

const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const PROBLEM: &str = "application/problem+json";

type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What is to be said about one endpoint.
pub(super) struct Operation {
    id: &'static str,
    does: &'static str,
    query: Option<SchemaOf>,
    body: Option<SchemaOf>,
    answers: Vec<Answer>,
    refuses: Vec<u16>,
    conditional: bool,
}

struct Answer {
    status: u16,
    content: Vec<(&'static str, SchemaOf)>,
    headers: &'static [(&'static str, &'static str)],
}

const TAG: (&str, &str) = ("ETag", "The version of what is shown.");
const INDEX: (&str, &str) = ("X-Holdline-Index", "What to send as `index` to wait for a change of the list.");
const LOCATION: (&str, &str) = ("Location", "The path of what was made.");

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// The operation called `id`.
pub(super) fn operation(id: &'static str, does: &'static str) -> Operation {
    let (query, body) = (None, None);
    Operation { id, does, query, body, answers: Vec::new(), refuses: Vec::new(), conditional: false }
}

impl Operation {
    pub(super) fn query<T: JsonSchema>(self) -> Self {
        // A parameter is a field, so the schema is wanted here and not its name.
        Self { query: Some(T::json_schema), ..self }
    }

    pub(super) fn body<T: JsonSchema>(self) -> Self {
        Self { body: Some(schema_of::<T>), ..self }
    }

    /// Answers a `T` in JSON.
    pub(super) fn answers<T: JsonSchema>(self, status: u16) -> Self {
        self.answering(status, vec![(JSON, schema_of::<T>)], &[])
    }

    /// Answers a `T` in JSON, with its tag.
    pub(super) fn tagged<T: JsonSchema>(self, status: u16) -> Self {
        self.answering(status, vec![(JSON, schema_of::<T>)], &[TAG])
    }

    /// Answers a `T` that was made just now.
    pub(super) fn makes<T: JsonSchema>(self) -> Self {
        self.answering(201, vec![(JSON, schema_of::<T>)], &[TAG, LOCATION])
    }

    /// Answers a list that can be waited for.
    pub(super) fn lists<T: JsonSchema>(self) -> Self {
        self.answering(200, vec![(JSON, schema_of::<T>)], &[TAG, INDEX]).unless_known().refuses(&[503])
    }

    /// Answers text of these media types.
    pub(super) fn text(self, media_types: &[&'static str]) -> Self {
        let content = media_types.iter().map(|&media_type| (media_type, schema_of::<String> as SchemaOf)).collect();
        self.answering(200, content, &[])
    }

    /// Answers a page in JSON, or a stream of events to a caller that accepts one.
    pub(super) fn pages_or_streams<T: JsonSchema>(self) -> Self {
        self.answering(200, vec![(JSON, schema_of::<T>), ("text/event-stream", schema_of::<String>)], &[])
    }

    /// Answers a stream of `T`, one in JSON a line.
    pub(super) fn streams_lines<T: JsonSchema>(self) -> Self {
        self.answering(200, vec![("application/x-ndjson", schema_of::<T>)], &[])
    }

    /// Answers without a body.
    pub(super) fn nothing(self, status: u16) -> Self {
        self.answering(status, Vec::new(), &[])
    }

    /// Answers 304 to a caller that has it already.
    pub(super) fn unless_known(self) -> Self {
        Self { conditional: true, ..self.answering(304, Vec::new(), &[TAG]) }
    }

    /// Takes the conditions of RFC 9110 section 13, and refuses with 412 where they are not met.
    pub(super) fn if_as_expected(self) -> Self {
        Self { conditional: true, ..self.refuses(&[412]) }
    }

    /// Can be refused for what does not follow from the table.
    pub(super) fn refuses(mut self, statuses: &[u16]) -> Self {
        self.refuses.extend(statuses);
        self
    }

    fn answering(
        mut self,
        status: u16,
        content: Vec<(&'static str, SchemaOf)>,
        headers: &'static [(&'static str, &'static str)],
    ) -> Self {
        self.answers.push(Answer { status, content, headers });
        self
    }
}

/// What is read and what is written are two views of a type: a field with a default need not be sent, but is answered.
struct Schemas {
    read: SchemaGenerator,
    written: SchemaGenerator,
}

/// The document.
pub(super) fn document(endpoints: &[Endpoint]) -> Value {
    let settings =
        || SchemaSettings::draft2020_12().with(|settings| settings.definitions_path = "/components/schemas".into());
    let mut schemas = Schemas {
        read: settings().for_deserialize().into_generator(),
        written: settings().for_serialize().into_generator(),
    };
    let problem = schemas.written.subschema_for::<ProblemBody>();
    let mut paths = Map::new();
    for endpoint in endpoints.iter().filter(|endpoint| endpoint.path != PATH) {
        let methods = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        methods[endpoint.method.as_str().to_ascii_lowercase()] = describe(endpoint, &mut schemas, &problem);
    }
    let mut definitions = schemas.read.take_definitions(true);
    definitions.extend(schemas.written.take_definitions(true));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Holdline admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Writes leave an audit line. Where no tokens file is configured, a listener on loopback or on a \
                            socket file asks for none.",
        },
        "paths": paths,
        "components": {
            "schemas": definitions,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn describe(endpoint: &Endpoint, schemas: &mut Schemas, problem: &Schema) -> Value {
    let operation = &endpoint.operation;
    let mut said = json!({
        "operationId": operation.id,
        "summary": operation.does,
        "tags": [tag(endpoint.path)],
        "parameters": parameters(endpoint, schemas),
        "responses": responses(endpoint, schemas, problem),
        "security": if endpoint.access == Access::Open { json!([]) } else { json!([{ "token": [] }]) },
    });
    if let Some(role) = role(endpoint.access) {
        said["x-holdline-role"] = role.into();
    }
    if let Some(body) = operation.body {
        let schema = body(&mut schemas.read);
        let mut content = json!({ JSON: { "schema": &schema } });
        if endpoint.method == Method::PATCH {
            content[MERGE_PATCH] = content[JSON].clone();
        }
        // An absent body is an empty object, which is enough where no field must be given.
        said["requestBody"] = json!({ "content": content, "required": has_required(&schema, &schemas.read) });
    }
    said
}

fn has_required(schema: &Schema, definitions: &SchemaGenerator) -> bool {
    let name = schema.get("$ref").and_then(Value::as_str).and_then(|path| path.rsplit('/').next());
    let fields = name.and_then(|name| definitions.definitions().get(name));
    fields.and_then(|fields| fields["required"].as_array()).is_some_and(|required| !required.is_empty())
}

/// `/v1/pipes/{id}` is about `pipes`.
fn tag(path: &str) -> &str {
    path.trim_start_matches("/v1").split('/').nth(1).filter(|part| !part.is_empty()).unwrap_or("dashboard")
}

/// The least role; the operator has all of them.
const fn role(access: Access) -> Option<&'static str> {
    match access {
        Access::Open => None,
        Access::Viewer => Some("viewer"),
        Access::Worker => Some("worker"),
        Access::Operator => Some("operator"),
    }
}

fn parameters(endpoint: &Endpoint, schemas: &mut Schemas) -> Vec<Value> {
    let mut all: Vec<Value> = path_parameters(endpoint.path)
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    if let Some(query) = endpoint.operation.query {
        let mut schema = query(&mut schemas.read).to_value();
        if let Value::Object(fields) = schema["properties"].take() {
            all.extend(fields.into_iter().map(|(name, schema)| {
                json!({ "name": name, "in": "query", "required": false, "schema": without_null(schema) })
            }));
        }
    }
    if endpoint.operation.conditional {
        let reads = endpoint.method == Method::GET;
        let names = ["If-None-Match", "If-Match"].into_iter().take(if reads { 1 } else { 2 });
        all.extend(names.map(|name| json!({ "name": name, "in": "header", "schema": { "type": "string" } })));
    }
    all
}

fn path_parameters(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
}

/// A parameter that is not given is absent; there is no way to write a null.
fn without_null(mut schema: Value) -> Value {
    if let Value::Array(types) = &mut schema["type"] {
        types.retain(|name| name != "null");
        if let [only] = types.as_slice() {
            schema["type"] = only.clone();
        }
    }
    if let Value::Array(any) = &mut schema["anyOf"] {
        any.retain(|option| option["type"] != "null");
    }
    if let Value::Object(fields) = &mut schema {
        fields.retain(|_, value| !value.is_null());
    }
    schema
}

fn responses(endpoint: &Endpoint, schemas: &mut Schemas, problem: &Schema) -> Value {
    let mut all = Map::new();
    for answer in &endpoint.operation.answers {
        let content: Map<String, Value> = answer
            .content
            .iter()
            .map(|(media_type, schema)| ((*media_type).to_owned(), json!({ "schema": schema(&mut schemas.written) })))
            .collect();
        let headers: Map<String, Value> = answer
            .headers
            .iter()
            .map(|(name, what)| ((*name).to_owned(), json!({ "description": what, "schema": { "type": "string" } })))
            .collect();
        let mut response = json!({ "description": phrase(answer.status), "headers": headers });
        if !content.is_empty() {
            response["content"] = content.into();
        }
        all.insert(answer.status.to_string(), response);
    }
    for status in refusals(endpoint) {
        let response = json!({ "description": phrase(status), "content": { PROBLEM: { "schema": problem } } });
        all.entry(status.to_string()).or_insert(response);
    }
    all.into()
}

/// What an endpoint can be refused with: by its author's word, and by its place in the table.
fn refusals(endpoint: &Endpoint) -> Vec<u16> {
    let operation = &endpoint.operation;
    let mut all = operation.refuses.clone();
    if endpoint.access != Access::Open {
        all.extend([401, 403]);
    }
    if !endpoint.method.is_safe() {
        all.push(415);
    }
    if operation.body.is_some() {
        all.extend([400, 413, 422]);
    }
    if operation.query.is_some() {
        all.push(422);
    }
    if path_parameters(endpoint.path).next().is_some() {
        all.push(404);
    }
    all.sort_unstable();
    all.dedup();
    all
}

fn phrase(status: u16) -> &'static str {
    StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("An answer")
}
