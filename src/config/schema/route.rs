//! The keys of `[[routes]]`.

use std::time::Duration;

use super::super::{Rate, Route};
use super::profile::at_most;
use super::root::{DAY, GIB, HOUR, MILLISECOND, bounded_rate};
use super::{Key, any, key, name, off_or, range, some};
use crate::routes::is_auth_header;

pub(super) fn keys() -> Vec<Key<Route>> {
    let mut keys = matching();
    keys.extend(affinity());
    keys.extend(auth());
    keys.extend(pipes());
    keys.extend(headers());
    keys.extend(overrides());
    keys.extend(limits());
    keys.extend(heartbeats());
    keys.extend(sharing());
    keys.extend(prologue());
    keys
}

fn matching() -> Vec<Key<Route>> {
    vec![
        key("name", |r: &mut Route| &mut r.name, |text| name(text), "what metrics and logs call it"),
        key(
            "path",
            |r: &mut Route| &mut r.path,
            |paths| if paths.0.is_empty() { Err("a route needs a path".to_owned()) } else { Ok(()) },
            "\"/ws/{device}\", \"/{*rest}\", or a list of them: the most specific pattern wins",
        ),
        key(
            "hosts",
            |r: &mut Route| &mut r.hosts,
            any,
            "hosts it answers to, \"*.example.com\" for any label in front; empty is any",
        ),
        key("pool", |r: &mut Route| &mut r.pool, any, "the name of a pool"),
        key(
            "key",
            |r: &mut Route| &mut r.key,
            any,
            "template over path parameters, query, headers, {cookie.NAME} and {client}: ownership, affinity, limits",
        )
        .or("\"{query.session}\""),
        key(
            "no_owner",
            |r: &mut Route| &mut r.no_owner,
            any,
            "a key that no backend serves: \"refuse\" with 404, or \"any\" backend",
        ),
        key(
            "backend_path",
            |r: &mut Route| &mut r.backend_path,
            any,
            "template of the path towards the backend, instead of the client's or the URL's own",
        )
        .or("\"/ws/{alias}\""),
        key(
            "upgrade",
            |r: &mut Route| &mut r.upgrade,
            any,
            "\"websocket\" answers a plain request 426, \"any\" relays it",
        ),
        key(
            "http_fallback",
            |r: &mut Route| &mut r.http_fallback,
            any,
            "whether clients may come by long poll, server-sent events and POST where WebSockets fail: docs/client-guide.md",
        ),
    ]
}

fn affinity() -> Vec<Key<Route>> {
    vec![
        key(
            "sticky",
            |r: &mut Route| &mut r.sticky,
            any,
            "\"cookie\" brings a client back to the worker that it had, by a cookie of ours",
        ),
        key(
            "learn",
            |r: &mut Route| &mut r.learn,
            any,
            "keys that workers make up, taken from their answers; [{ path = \"/api/kernels\", json = \"/id\" }] is one",
        ),
        key(
            "learn_ttl",
            |r: &mut Route| &mut r.learn_ttl,
            range(MILLISECOND, DAY),
            "how long a learned key is remembered without being used",
        ),
        key(
            "wait",
            |r: &mut Route| &mut r.wait,
            some(range(Duration::ZERO, HOUR)),
            "a new handshake, GET or HEAD waits so long for a worker; reattach.grace, 10s at most, if absent; 0 is 503 at once",
        )
        .or("\"10s\""),
        key(
            "raw_path",
            |r: &mut Route| &mut r.raw_path,
            any,
            "true lets paths through that workers may read as others: %2F, %5C, %00, backslashes, dot segments; else 400",
        ),
        key(
            "check_utf8",
            |r: &mut Route| &mut r.check_utf8,
            any,
            "true closes the sender of text that is not UTF-8 with 1007; false lets it through to be judged by its reader",
        ),
        key(
            "compression",
            |r: &mut Route| &mut r.compression,
            any,
            "\"pass\" has client and worker compress without context takeover where both want to; \"off\" has them not",
        ),
        key(
            "origins",
            |r: &mut Route| &mut r.origins,
            any,
            "pages that may connect: exact, \"https://*.example.com\" for one label, \"null\", \"file://\"; empty is any",
        ),
    ]
}

fn auth() -> Vec<Key<Route>> {
    vec![
        key(
            "auth_url",
            |r: &mut Route| &mut r.auth_url,
            any,
            "server that is asked who may connect before a worker is: 2xx lets in, 3xx and 4xx are the client's answer, else 503",
        )
        .or("\"http://127.0.0.1:4180/check\""),
        key(
            "auth_headers",
            |r: &mut Route| &mut r.auth_headers,
            |names| names.iter().try_for_each(|name| is_auth_header(name)),
            "headers of its 2xx that workers get and templates take as {auth.NAME}; a client's own of that name are dropped",
        ),
        key(
            "auth_timeout",
            |r: &mut Route| &mut r.auth_timeout,
            range(MILLISECOND, HOUR),
            "how long it has to answer; then 503",
        ),
        key(
            "auth_requests_max",
            |r: &mut Route| &mut r.auth_requests_max,
            range(1, 100_000),
            "requests that are being asked about at once; beyond, 503",
        ),
    ]
}

fn pipes() -> Vec<Key<Route>> {
    vec![
        key(
            "conversation",
            |r: &mut Route| &mut r.conversation,
            any,
            "\"stateless\" goes on anywhere, \"profile\" by prologue.*, \"stateful\" ends with its worker; \"auto\": docs/conversations.md",
        ),
        key(
            "on_backend_loss",
            |r: &mut Route| &mut r.on_backend_loss,
            any,
            "\"reattach\", or \"close\" with 1012 where the state lives in the worker",
        ),
        key(
            "refusal",
            |r: &mut Route| &mut r.refusal,
            any,
            "each worker of a round refuses a reattach with a 4xx: \"end\" is 1012 at once, \"wait\" asks on until the grace is over",
        ),
        key(
            "on_refused",
            |r: &mut Route| &mut r.on_refused,
            any,
            "a worker answers 401 or 403 at a reattach, to the client's first headers: \"close\" ends it with 1008, \"next\" asks the next",
        ),
        key(
            "down",
            |r: &mut Route| &mut r.down,
            any,
            "a slow client: \"keep\" pauses the worker, \"latest:N\" keeps the newest N messages (video)",
        ),
        key(
            "on_too_big",
            |r: &mut Route| &mut r.on_too_big,
            any,
            "a worker's message over message.max_bytes: \"close\" ends the pipe with 1009, \"drop\" loses that message only",
        ),
        key(
            "confirm",
            |r: &mut Route| &mut r.confirm,
            any,
            "what confirms a message to a worker: \"pong\" its library's, \"commit\" only its application's (docs/workers.md)",
        ),
        key(
            "first_message_timeout",
            |r: &mut Route| &mut r.first_message_timeout,
            off_or(MILLISECOND, HOUR),
            "an attached worker that says nothing for so long is given up; 0 waits for ever",
        ),
        key(
            "interrupt_codes",
            |r: &mut Route| &mut r.interrupt_codes,
            any,
            "close codes of a worker that interrupt the pipe; the others end it, and so does a close without a code (1005)",
        ),
        key(
            "wrong_worker_codes",
            |r: &mut Route| &mut r.wrong_worker_codes,
            any,
            "close codes that mean \"not my key\" right after a reattach: the next candidate is tried",
        ),
    ]
}

fn headers() -> Vec<Key<Route>> {
    vec![
        key(
            "host",
            |r: &mut Route| &mut r.host,
            any,
            "Host towards the worker: the \"client\"'s, the \"backend\"'s own, or a literal one",
        ),
        key(
            "headers.request.set",
            |r: &mut Route| &mut r.headers.request.set,
            any,
            "headers that workers get with this value, whatever the client sent",
        ),
        key(
            "headers.request.add",
            |r: &mut Route| &mut r.headers.request.add,
            any,
            "headers that workers get beside the client's",
        ),
        key(
            "headers.request.remove",
            |r: &mut Route| &mut r.headers.request.remove,
            any,
            "headers of the client that workers do not get",
        ),
        key(
            "headers.response.set",
            |r: &mut Route| &mut r.headers.response.set,
            any,
            "headers of workers' answers with this value, a 101 too",
        ),
        key(
            "headers.response.add",
            |r: &mut Route| &mut r.headers.response.add,
            any,
            "headers beside those of the worker's answer",
        ),
        key(
            "headers.response.remove",
            |r: &mut Route| &mut r.headers.response.remove,
            any,
            "headers of workers' answers that clients do not get",
        ),
    ]
}

fn overrides() -> Vec<Key<Route>> {
    vec![
        key("replay", |r: &mut Route| &mut r.replay, any, "instead of replay.policy").or("\"unsent\""),
        key(
            "replay_tail.bytes",
            |r: &mut Route| &mut r.replay_tail.bytes,
            some(range(0, GIB)),
            "instead of replay.tail.bytes",
        )
        .or("\"256KiB\""),
        key(
            "replay_tail.messages",
            |r: &mut Route| &mut r.replay_tail.messages,
            some(range(0, 1_000_000)),
            "instead of replay.tail.messages",
        )
        .or("64"),
        key(
            "replay_tail.age",
            |r: &mut Route| &mut r.replay_tail.age,
            some(range(Duration::ZERO, HOUR)),
            "instead of replay.tail.age",
        )
        .or("\"2s\""),
        key(
            "replay_delay",
            |r: &mut Route| &mut r.replay_delay,
            some(range(Duration::ZERO, HOUR)),
            "instead of replay.delay",
        )
        .or("\"500ms\""),
        key("overflow", |r: &mut Route| &mut r.overflow, any, "instead of replay.overflow").or("\"close\""),
        key(
            "message_max_bytes",
            |r: &mut Route| &mut r.message_max_bytes,
            some(range(1, GIB)),
            "instead of message.max_bytes",
        )
        .or("\"1MiB\""),
    ]
}

fn limits() -> Vec<Key<Route>> {
    vec![
        key(
            "limits.key_connections",
            |r: &mut Route| &mut r.limits.key_connections,
            any,
            "instead of limits.key_connections",
        )
        .or("0"),
        key(
            "limits.key_rate",
            |r: &mut Route| &mut r.limits.key_rate,
            some(|rate: &Rate| bounded_rate(rate)),
            "instead of limits.key_rate",
        )
        .or("\"60/min\""),
        key(
            "limits.address_connections",
            |r: &mut Route| &mut r.limits.address_connections,
            any,
            "instead of limits.address_connections",
        )
        .or("100"),
        key(
            "limits.address_rate",
            |r: &mut Route| &mut r.limits.address_rate,
            some(|rate: &Rate| bounded_rate(rate)),
            "instead of limits.address_rate, counted for this route by itself",
        )
        .or("\"5 per second\""),
        key(
            "limits.headers",
            |r: &mut Route| &mut r.limits.headers,
            any,
            "answers say in RateLimit headers how far their client is from address_rate",
        ),
    ]
}

fn heartbeats() -> Vec<Key<Route>> {
    vec![
        key(
            "heartbeat.client_interval",
            |r: &mut Route| &mut r.heartbeat.client_interval,
            some(off_or(MILLISECOND, DAY)),
            "instead of heartbeat.client_interval",
        )
        .or("\"10s\""),
        key(
            "heartbeat.client_timeout",
            |r: &mut Route| &mut r.heartbeat.client_timeout,
            some(range(MILLISECOND, DAY)),
            "instead of heartbeat.client_timeout",
        )
        .or("\"20s\""),
        key(
            "heartbeat.backend_interval",
            |r: &mut Route| &mut r.heartbeat.backend_interval,
            some(off_or(MILLISECOND, DAY)),
            "instead of heartbeat.backend_interval",
        )
        .or("\"10s\""),
        key(
            "heartbeat.backend_timeout",
            |r: &mut Route| &mut r.heartbeat.backend_timeout,
            some(range(MILLISECOND, DAY)),
            "instead of heartbeat.backend_timeout",
        )
        .or("\"60s\""),
    ]
}

fn sharing() -> Vec<Key<Route>> {
    vec![
        key(
            "client_id",
            |r: &mut Route| &mut r.client_id,
            any,
            "template that names the client, so that it can come back to its pipe; the name is its credential",
        )
        .or("\"{query.client}\""),
        key(
            "labels",
            |r: &mut Route| &mut r.labels,
            any,
            "groups that its pipes belong to, for broadcasts and lists; { room = \"{query.room}\" } is one: docs/operations.md",
        ),
        key(
            "resume",
            |r: &mut Route| &mut r.resume,
            any,
            "\"cookie\" lets an unmodified browser come back to its pipe, by a cookie that the 101 sets",
        ),
        key(
            "duplicate",
            |r: &mut Route| &mut r.duplicate,
            any,
            "a second connection of one client: \"replace\" the first or \"reject\" it with 409",
        ),
        key(
            "replaced_code",
            |r: &mut Route| &mut r.replaced_code,
            |code: &u32| match code {
                1000 | 4000..=4999 => Ok(()),
                _ => Err("use 1000, or a code of your own: 4000 to 4999".to_owned()),
            },
            "close code of a connection that is replaced; 4901, say, tells a client not to connect again by itself",
        ),
        key(
            "share",
            |r: &mut Route| &mut r.share,
            any,
            "one backend connection serves every pipe with the same key and path",
        ),
        key(
            "share_linger",
            |r: &mut Route| &mut r.share_linger,
            range(Duration::ZERO, DAY),
            "how long a shared connection outlives its last pipe",
        ),
        key(
            "share_catch_up",
            |r: &mut Route| &mut r.share_catch_up,
            range(0, 1_000_000),
            "messages that a newcomer to a shared connection is given first",
        ),
        key(
            "share_bytes_max",
            |r: &mut Route| &mut r.share_bytes_max,
            range(64 * 1024, GIB),
            "newest messages that a shared connection keeps for pipes that are behind, and for newcomers",
        ),
    ]
}

fn prologue() -> Vec<Key<Route>> {
    vec![
        key(
            "prologue.first",
            |r: &mut Route| &mut r.prologue.first,
            range(0, 1000),
            "the first N client messages are said again to each new worker; 0 is none",
        ),
        key(
            "prologue.profile",
            |r: &mut Route| &mut r.prologue.profile,
            some(|text: &String| name(text)),
            "a profile instead of a number, built in or of [[profiles]]: what it keeps is said again to each new worker",
        )
        .or("\"graphql-transport-ws\""),
        key(
            "prologue.keep",
            |r: &mut Route| &mut r.prologue.keep,
            |rules| at_most(rules),
            "JSON or Socket.IO events that are said again too; [{ json = \"/0\", equals = \"join\", key = \"/1\" }] is one",
        ),
        key(
            "prologue.forget",
            |r: &mut Route| &mut r.prologue.forget,
            |rules| at_most(rules),
            "what makes those superfluous; [{ json = \"/0\", equals = \"leave\", key = \"/1\" }] is one",
        ),
    ]
}
