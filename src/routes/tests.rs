//! Which route takes a request, and what the backend is asked for.

use http::Request;

use super::*;
use crate::config::Config;

/// Who asks.
const CLIENT: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 9));

/// The plainest route for `path`.
pub(crate) fn spec(name: &str, path: &str) -> RouteSpec {
    RouteSpec {
        name: name.into(),
        paths: vec![path.into()],
        hosts: Vec::new(),
        pool: "default".into(),
        key: None,
        any_without_owner: false,
        backend_path: None,
        client_id: None,
        labels: BTreeMap::new(),
        duplicate: Duplicate::Replace,
        resume_cookie: false,
        auth: None,
        aware_heartbeat: std::time::Duration::from_secs(25),
        client_grace: std::time::Duration::from_secs(60),
        raw_path: false,
        origins: Vec::new(),
        websocket_only: false,
        http_fallback: false,
        wait: Duration::ZERO,
        sticky: false,
        learn: Vec::new(),
        learn_ttl: std::time::Duration::ZERO,
        host: crate::routes::HostRule::Client,
        headers: Default::default(),
        limits: holdline_core::limits::RouteLimits::default(),
        settings: Config::default().pipe_settings(&crate::config::Route::default()),
        conversation: ConversationRule::Auto,
        compression: true,
        share: None,
    }
}

fn keyed(path: &str, key: &str) -> RouteSpec {
    RouteSpec { key: Some(key.into()), ..spec("r", path) }
}

fn rewriting(path: &str, key: &str, backend_path: &str) -> RouteSpec {
    RouteSpec { backend_path: Some(backend_path.into()), ..keyed(path, key) }
}

fn on_hosts(name: &str, path: &str, hosts: &[&str]) -> RouteSpec {
    RouteSpec { hosts: hosts.iter().map(|&host| host.to_owned()).collect(), ..spec(name, path) }
}

fn table(specs: Vec<RouteSpec>) -> RouteTable {
    RouteTable::compile(specs).expect("the routes are good")
}

fn parts(uri: &str, headers: &[(&str, &str)]) -> Parts {
    let request =
        headers.iter().fold(Request::builder().uri(uri), |request, (name, value)| request.header(*name, *value));
    request.body(()).expect("the request is good").into_parts().0
}

fn found(table: &RouteTable, host: &str, uri: &str) -> String {
    match table.find(Some(host), &parts(uri, &[]), CLIENT) {
        Ok(found) => found.route.name.clone(),
        Err(error) => error.to_string(),
    }
}

fn key_of(spec: RouteSpec, uri: &str, headers: &[(&str, &str)]) -> Option<String> {
    table(vec![spec]).find(None, &parts(uri, headers), CLIENT).expect("a route").key
}

fn asked(spec: RouteSpec, uri: &str, backend: &str, alias: Option<&str>) -> String {
    let found = table(vec![spec]).find(None, &parts(uri, &[("x-device", "a/b c")]), CLIENT).expect("a route");
    found.target.for_backend(Some(backend).filter(|path| *path != "/"), alias)
}

fn refused(spec: RouteSpec) -> (&'static str, String) {
    let error = RouteTable::compile(vec![spec]).expect_err("the route is bad");
    (error.key, error.message)
}

#[test]
fn the_most_specific_path_wins_whatever_the_order() {
    let table = table(vec![
        spec("rest", "/{*path}"),
        spec("param", "/ws/{session}"),
        spec("static", "/ws/list"),
        spec("deep", "/ws/{session}/{*kind}"),
    ]);
    for (uri, name) in [
        ("/ws/list", "static"),
        ("/ws/s1", "param"),
        ("/ws/s1/video", "deep"),
        ("/ws/s1/", "deep"),
        ("/", "rest"),
        ("/index.html?x=1", "rest"),
        ("/ws", "rest"),
    ] {
        assert_eq!(found(&table, "any", uri), name, "{uri}");
    }
}

#[test]
fn the_most_specific_host_wins_before_the_path() {
    let table = table(vec![
        spec("any", "/{*path}"),
        on_hosts("below", "/{*path}", &["*.example.com"]),
        on_hosts("deeper", "/{*path}", &["*.eu.example.com"]),
        on_hosts("exact", "/only", &["app.example.com", "other.example"]),
    ]);
    for (host, uri, name) in [
        ("app.example.com", "/only", "exact"),
        ("APP.example.com.:8000", "/only", "exact"),
        ("other.example", "/only", "exact"),
        ("app.example.com", "/else", "below"),
        ("x.eu.example.com", "/", "deeper"),
        ("eu.example.com", "/", "below"),
        ("example.com", "/", "any"),
        ("badexample.com", "/", "any"),
    ] {
        assert_eq!(found(&table, host, uri), name, "{host}{uri}");
    }
}

#[test]
fn what_no_route_matches_is_not_found() {
    let table = table(vec![on_hosts("one", "/ws/{session}", &["a.example"])]);
    for (host, uri) in
        [("b.example", "/ws/1"), ("a.example", "/"), ("a.example", "/ws/"), ("a.example", "/ws/1/2"), ("", "/ws/1")]
    {
        assert_eq!(found(&table, host, uri), NoRoute::NotFound.to_string(), "{host}{uri}");
    }
}

#[test]
fn an_empty_rest_belongs_to_the_route_that_names_it() {
    let table = table(vec![spec("rest", "/app/{*rest}"), spec("home", "/app/")]);
    assert_eq!(found(&table, "any", "/app/"), "home");
    assert_eq!(found(&table, "any", "/app/x"), "rest");
}

#[test]
fn a_key_comes_from_path_query_and_headers_decoded() {
    let raw = RouteSpec { raw_path: true, ..keyed("/ws/{session}/v", "{session}") };
    assert_eq!(key_of(raw, "/ws/a%2Fb/v", &[]).as_deref(), Some("a/b"));
    assert_eq!(key_of(keyed("/{*p}", "{query.udid}"), "/x?a=1&udid=A+B%21", &[]).as_deref(), Some("A B!"));
    assert_eq!(key_of(keyed("/{*p}", "{header.X-Device}"), "/x", &[("x-device", "d1")]).as_deref(), Some("d1"));
    let mixed = keyed("/ws/{session}", "{{{session}}}/{query.u}-{header.x-device}");
    assert_eq!(key_of(mixed, "/ws/s?u=1", &[("x-device", "d")]).as_deref(), Some("{s}/1-d"));
}

#[test]
fn a_request_that_lacks_a_part_of_the_key_has_none() {
    for (spec, uri) in [
        (keyed("/{*p}", "{query.udid}"), "/x"),
        (keyed("/{*p}", "{query.udid}"), "/x?udid="),
        (keyed("/{*p}", "{query.udid}"), "/x?xudid=1"),
        (keyed("/{*p}", "{header.x-device}"), "/x"),
        (keyed("/{*p}", "{p}"), "/"),
        (spec("r", "/{*p}"), "/x"),
    ] {
        assert_eq!(key_of(spec, uri, &[]), None, "{uri}");
    }
}

#[test]
fn a_key_that_may_be_read_in_two_ways_is_refused() {
    let query = || keyed("/{*p}", "{query.udid}");
    for uri in
        ["/x?udid=a&udid=V", "/x?udid=&udid=V", "/x?udid=V&a&udid", "/x?udid=V&%75did=V", "/x?udid=%ff", "/x?udid=%zz"]
    {
        let found = table(vec![query()]).find(None, &parts(uri, &[]), CLIENT);
        assert!(matches!(found, Err(NoRoute::Unclear(_))), "{uri}: {found:?}");
    }
    for spec in [keyed("/{*p}", "{header.x-device}"), rewriting("/{*p}", "{p}", "/d/{header.x-device}")] {
        let found = table(vec![spec]).find(None, &parts("/x", &[("x-device", "a"), ("X-Device", "V")]), CLIENT);
        assert!(matches!(found, Err(NoRoute::Unclear(_))), "{found:?}");
    }
    let named = RouteSpec { client_id: Some("{query.id}".into()), ..spec("r", "/{*p}") };
    let found = table(vec![named]).find(None, &parts("/x?id=a&id=b", &[]), CLIENT);
    assert!(matches!(found, Err(NoRoute::Unclear(_))), "{found:?}");
    let path = table(vec![keyed("/ws/{session}", "{session}")]);
    assert!(matches!(path.find(None, &parts("/ws/%ff", &[]), CLIENT), Err(NoRoute::Unclear(_))));
    let elsewhere = table(vec![query()]).find(None, &parts("/x?a=1&a=2&udid=V", &[]), CLIENT).expect("a route");
    assert_eq!(elsewhere.key.as_deref(), Some("V"), "only what counts has to come once");
}

#[test]
fn requests_without_their_routes_key_are_limited_as_those_of_one_key() {
    let limited = |spec: RouteSpec, uri| {
        let found = table(vec![spec]).find(None, &parts(uri, &[]), CLIENT).expect("a route");
        found.limited_key().map(str::to_owned)
    };
    for (uri, key) in [("/x", ""), ("/x?udid=", ""), ("/x?udid=a", "a")] {
        assert_eq!(limited(keyed("/{*p}", "{query.udid}"), uri).as_deref(), Some(key), "{uri}");
    }
    assert_eq!(limited(spec("r", "/{*p}"), "/x"), None, "a route without a key has no key limits");
}

#[test]
fn a_bad_route_names_its_key_and_what_is_wrong() {
    let ws = "/ws/{session}";
    for (spec, key, part) in [
        (spec("r", "ws"), "path", "must start with"),
        (spec("r", "/{*a}/b"), "path", "Catch-all"),
        (spec("r", "/{a"), "path", "never closed"),
        (spec("r", "/a}"), "path", "closes nothing"),
        (spec("r", "/{a}/{a}"), "path", "a name of its own"),
        (spec("r", "/{alias}"), "path", "alias"),
        (keyed(ws, "{sesion}"), "key", "{sesion} is unknown: the path has session"),
        (keyed("/ws", "{session}"), "key", "no parameters"),
        (keyed(ws, "{query.}"), "key", "unknown"),
        (keyed(ws, "{header.a b}"), "key", "not a header name"),
        (keyed(ws, "constant"), "key", "the same for every request"),
        (keyed(ws, ""), "key", "the same for every request"),
        (keyed(ws, "{alias}"), "key", "backend_path only"),
        (keyed(ws, "{session"), "key", "never closed"),
        (rewriting(ws, "{session}", "ws/{alias}"), "backend_path", "must start with"),
        (rewriting(ws, "{session}", "/ws/a b"), "backend_path", "percent-encoded"),
        (rewriting(ws, "{session}", "/ws/\r\nx"), "backend_path", "percent-encoded"),
        (rewriting(ws, "{session}", "/ws/../{alias}"), "backend_path", "cannot be parts"),
        (rewriting(ws, "{session}", "/ws/{query}"), "backend_path", "behind a `?`"),
        (RouteSpec { key: None, ..rewriting(ws, "{session}", "/ws/{alias}") }, "backend_path", "needs routes.key"),
        (on_hosts("r", "/", &["http://a"]), "hosts", "without scheme"),
        (RouteSpec { origins: vec!["https://a.example/".into()], ..spec("r", "/") }, "origins", "trailing slash"),
        (RouteSpec { origins: vec!["https://*.com".into()], ..spec("r", "/") }, "origins", "two labels"),
        (RouteSpec { origins: vec!["https://*.a.example/".into()], ..spec("r", "/") }, "origins", "trailing slash"),
        (RouteSpec { origins: vec!["https://*".into()], ..spec("r", "/") }, "origins", "plain host"),
        (RouteSpec { origins: vec!["https://a.*.example".into()], ..spec("r", "/") }, "origins", "plain host"),
    ] {
        let (at, message) = refused(spec);
        assert_eq!(at, key, "{message}");
        assert!(message.contains(part), "{message}");
    }
}

#[test]
fn another_spelling_of_a_path_finds_the_same_route_and_the_same_key() {
    let table = table(vec![
        spec("rest", "/{*path}"),
        keyed("/ws/{session}/control", "{session}"),
        RouteSpec { client_id: Some("{name}".into()), ..spec("named", "/c/{name}") },
        spec("escaped", "/caf%C3%A9/%7euser"),
    ]);
    for uri in ["/ws/s1/control", "/ws/s1/%63ontrol", "/%77%73/%73%31/contro%6C", "/ws/s1/control?x=%2f.."] {
        let found = table.find(None, &parts(uri, &[]), CLIENT).expect("a route");
        assert_eq!((found.route.name.as_str(), found.key.as_deref()), ("r", Some("s1")), "{uri}");
    }
    for uri in ["/c/alice", "/c/%61lice", "/%63/ali%63e"] {
        let found = table.find(None, &parts(uri, &[]), CLIENT).expect("a route");
        assert_eq!((found.route.name.as_str(), found.client_id.as_deref()), ("named", Some("alice")), "{uri}");
    }
    assert_eq!(found(&table, "any", "/caf%c3%a9/~user"), "escaped");
    assert_eq!(found(&table, "any", "/ws/s1/%2563ontrol"), "rest", "decoded once, as a worker does");
}

#[test]
fn a_path_that_workers_may_read_as_another_is_refused_unless_its_route_takes_it() {
    let paths = [
        "/x/../ws/s1",
        "/ws/%2e%2e/x",
        "/ws/.%2E/x",
        "/ws/./x",
        "/ws/..",
        "/ws/a%2fb",
        "/ws/a%2Fb",
        "/ws/a%5cb",
        "/ws/a\\b",
        "/ws/%00",
        "/ws/..;x=1/y",
        "/ws/..%3b/y",
    ];
    for raw_path in [false, true] {
        let table = table(vec![RouteSpec { raw_path, ..spec("rest", "/{*path}") }]);
        for path in paths {
            let found = table.find(None, &parts(path, &[]), CLIENT);
            match raw_path {
                false => assert_eq!(found.map(|_| ()), Err(NoRoute::Ambiguous), "{path}"),
                true => assert_eq!(found.expect("a route").target.for_backend(None, None), path),
            }
        }
    }
}

#[test]
fn nothing_that_a_client_sends_leads_out_of_a_backend_path() {
    let forms = [
        ".",
        "..",
        "%2e%2e",
        ".%2e",
        "%2E.",
        "../x",
        "a/../../admin/shutdown%23",
        "a/..",
        "..%2fx",
        "%2e%2e%2fx",
        "..%5cx",
        "..\\x",
        "a%5c..%5cx",
        "..;",
        "..;x=1/y",
        "..%3bx",
        "a/./b",
        "%2e",
        "%2e%2f",
        "a%2f..",
        "..%00",
        "%ff",
        "%c0%ae%c0%ae",
    ];
    let query = || RouteSpec { raw_path: true, ..rewriting("/q", "{query.d}", "/devices/{query.d}/control") };
    let alias = || RouteSpec { raw_path: true, ..rewriting("/q", "{query.d}", "/devices/{alias}/control") };
    let param = || RouteSpec { raw_path: true, ..rewriting("/p/{d}", "{d}", "/devices/{d}") };
    let rest = || RouteSpec { raw_path: true, ..rewriting("/p/{*d}", "{d}", "/devices/{d}") };
    let header = || RouteSpec { raw_path: true, ..rewriting("/q", "{header.d}", "/devices/{header.d}/control") };
    for form in forms {
        let ways = [
            (query(), format!("/q?d={form}"), ""),
            (alias(), format!("/q?d={form}"), ""),
            (param(), format!("/p/{form}"), ""),
            (rest(), format!("/p/{form}"), ""),
            (header(), "/q".to_owned(), form),
        ];
        for (spec, uri, header) in ways {
            let Ok(found) = table(vec![spec]).find(None, &parts(&uri, &[("d", header)]), CLIENT) else { continue };
            let path = found.target.for_backend(None, None);
            let path = path.split('?').next().expect("a path");
            assert!(path.starts_with("/devices/") && !path::leaves_its_place(path), "{uri} {header}: {path}");
        }
    }
    for form in ["..", "%2e%2e", "a/../../admin/shutdown%23", "..%5cx", "%ff"] {
        let found = table(vec![query()]).find(None, &parts(&format!("/q?d={form}"), &[]), CLIENT);
        let refused = matches!(found, Err(NoRoute::Astray(_) | NoRoute::Unclear(_)));
        assert!(refused, "{form}: {found:?}");
    }
}

#[test]
fn two_routes_for_the_same_thing_are_refused() {
    let error = RouteTable::compile(vec![spec("a", "/ws/{x}"), spec("b", "/ws/{y}")]).expect_err("they conflict");
    assert_eq!((error.route.as_str(), error.key), ("b", "path"));
    let error = RouteTable::compile(vec![spec("a", "/a"), spec("a", "/b")]).expect_err("one name");
    assert_eq!(error.key, "name");
    table(vec![on_hosts("a", "/ws", &["a.example"]), on_hosts("b", "/ws", &["b.example"])]);
}

#[test]
fn without_a_template_the_backend_gets_the_clients_path_and_query() {
    let asked = |uri| asked(spec("r", "/{*p}"), uri, "/", None);
    assert_eq!(asked("/a%20b//c?x=1&y"), "/a%20b//c?x=1&y");
    assert_eq!(asked("/a?"), "/a?");
}

#[test]
fn a_backend_url_with_a_path_is_asked_for_that_path() {
    assert_eq!(asked(spec("r", "/{*p}"), "/client?x=1", "/ws/", None), "/ws/?x=1");
    assert_eq!(asked(spec("r", "/{*p}"), "/client", "/ws/dev", None), "/ws/dev");
    assert_eq!(asked(spec("r", "/{*p}"), "/client?x=1", "/ws?token=t", None), "/ws?token=t");
    assert_eq!(asked(keyed("/ws/{s}", "{s}"), "/ws/u1", "/fixed", Some("s9")), "/fixed");
}

#[test]
fn ib_08_an_alias_takes_the_place_of_the_key() {
    let ws = || keyed("/ws/{session}/control", "{session}");
    assert_eq!(asked(ws(), "/ws/ws/control?q=ws", "/", Some("s 1/2")), "/ws/s%201%2F2/control?q=ws");
    assert_eq!(asked(ws(), "/ws/%61%20b/control", "/", Some("s1")), "/ws/s1/control");
    assert_eq!(asked(ws(), "/%77s/u1/%63ontrol", "/", Some("s1")), "/%77s/s1/%63ontrol");
    assert_eq!(asked(ws(), "/ws/u1/control", "/", None), "/ws/u1/control");
    assert_eq!(
        asked(keyed("/{*p}", "{query.udid}"), "/v?a=udid&udid=u1&b", "/", Some("s&1")),
        "/v?a=udid&udid=s%261&b"
    );
    assert_eq!(asked(keyed("/{*p}", "{header.x-device}"), "/v", "/", Some("s1")), "/v");
}

#[test]
fn a_backend_path_template_decides_alone() {
    let ws = "/ws/{session}/{kind}";
    let ask = |template: &str, uri: &str, alias| asked(rewriting(ws, "{session}", template), uri, "/ignored?y", alias);
    assert_eq!(ask("/s/{alias}/{kind}", "/ws/u%201/video?q=1", Some("a/b")), "/s/a%2Fb/video?q=1");
    assert_eq!(ask("/s/{alias}", "/ws/u%201/video", None), "/s/u%201");
    assert_eq!(ask("/s/{session}?only=1", "/ws/u%201/video?q=1", None), "/s/u%201?only=1");
    assert_eq!(ask("/s?k={kind}&{query}", "/ws/u/video?q=1", None), "/s?k=video&q=1");
    assert_eq!(ask("/s/{query.q}", "/ws/u/video?q=%41", None), "/s/A?q=%41");
    assert_eq!(ask("/s/{query.q}", "/ws/u/video?q=my+phone", None), "/s/my%20phone?q=my+phone");
    assert_eq!(ask("/s/{query.q}/c", "/ws/u/video?q=x?admin=1", None), "/s/x%3Fadmin%3D1/c?q=x?admin=1");
    assert_eq!(ask("/s/{query.q}/c", "/ws/u/video?q=a/b%23", None), "/s/a%2Fb%23/c?q=a/b%23");
    assert_eq!(ask("/s?k={query.q}", "/ws/u/video?q=../a%26b", None), "/s?k=..%2Fa%26b");
    assert_eq!(ask("/s/{session}", "/ws/%252e%252e/video", None), "/s/%252e%252e");
    assert_eq!(asked(rewriting("/f/{*rest}", "{rest}", "/g/{rest}"), "/f/a/b%20c//d", "/", None), "/g/a/b%20c//d");
    assert_eq!(ask("/s/{header.x-device}", "/ws/u/video", None), "/s/a%2Fb%20c");
}

#[test]
fn a_template_that_lacks_a_value_says_which() {
    let ask = |template: &str, key: &str| {
        table(vec![rewriting("/{*p}", key, template)])
            .find(None, &parts("/x", &[]), CLIENT)
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    assert_eq!(ask("/{query.udid}", "{p}"), Err("this route needs the query parameter `udid`".into()));
    assert_eq!(ask("/{header.x-a}", "{p}"), Err("this route needs the header `x-a`".into()));
    assert_eq!(ask("/{alias}", "{query.udid}"), Err("this route needs its key".into()));
}

#[test]
fn origins_are_compared_exactly() {
    let with =
        |origins: &[&str]| RouteSpec { origins: origins.iter().map(|&o| o.to_owned()).collect(), ..spec("r", "/") };
    let allows = |origins: &[&str], sent: &[&str]| {
        let headers: Vec<_> = sent.iter().map(|&value| ("origin", value)).collect();
        table(vec![with(origins)])
            .find(None, &parts("/", &[]), CLIENT)
            .expect("a route")
            .route
            .allows_origin(&parts("/", &headers).headers)
    };
    let app = ["https://app.example.com", "http://localhost:3000"];
    assert!(allows(&app, &["https://app.example.com"]));
    assert!(allows(&app, &["https://app.example.com:443"]));
    assert!(allows(&app, &["http://localhost:3000"]));
    assert!(allows(&app, &[]), "no browser, no origin");
    assert!(allows(&[], &["null"]), "nothing configured");
    for bad in [
        "null",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com.evil.example",
        "https://evilapp.example.com",
        "https://app.example.com.",
        "https://APP.example.com",
        "https://app.example.com/",
        "https://app.example.com@evil.example",
        "https://evil.example/https://app.example.com",
        "http://localhost",
        "",
        "https://example.com",
    ] {
        assert!(!allows(&app, &[bad]), "{bad}");
    }
    let wild = ["https://*.example.com", "http://*.dev.example:3000", "null", "file://"];
    for good in ["https://a.example.com", "https://a.example.com:443", "http://x-1.dev.example:3000", "null", "file://"]
    {
        assert!(allows(&wild, &[good]), "{good}");
    }
    for bad in [
        "https://example.com",
        "https://a.b.example.com",
        "https://.example.com",
        "http://a.example.com",
        "https://a.example.com:8443",
        "https://aexample.com",
        "https://a.example.com.evil.example",
        "http://x.dev.example",
        "NULL",
        "file:///",
        "file://host",
        "",
    ] {
        assert!(!allows(&wild, &[bad]), "{bad}");
    }
    assert!(!allows(&app, &["https://app.example.com", "https://evil.example"]));
    assert!(!allows(&app, &["https://app.example.com", "https://app.example.com"]));
}

#[test]
fn the_default_configuration_serves_every_path_from_the_default_pool() {
    let config = Config::default();
    let table = table(config.route_specs());
    for uri in ["/", "/ws/s1/video?x=1"] {
        let found = table.find(Some("any"), &parts(uri, &[]), CLIENT).expect("a route");
        assert_eq!((found.route.pool.as_str(), found.key, found.route.websocket_only), ("default", None, false));
        assert_eq!(found.target.for_backend(None, None), uri);
    }
}

#[test]
fn a_route_may_have_several_paths_with_the_same_key_in_each() {
    let paths = ["/api/sessions/{session}", "/api/sessions/{session}/{*rest}", "/control/{session}", "/old/{*all}"];
    let several = |count: usize| RouteSpec {
        paths: paths[..count].iter().map(|&path| path.to_owned()).collect(),
        ..keyed("/", "{session}")
    };
    let table = RouteTable::compile(vec![several(3), spec("web", "/{*path}")]).unwrap();
    for (uri, name) in [
        ("/api/sessions/s1", "r"),
        ("/api/sessions/s1/", "r"),
        ("/api/sessions/s1/apps/x", "r"),
        ("/control/s1", "r"),
        ("/control/", "web"),
        ("/web", "web"),
    ] {
        let found = table.find(None, &parts(uri, &[]), CLIENT).unwrap();
        assert_eq!(found.route.name, name, "{uri}");
        assert_eq!(found.key.as_deref(), (name == "r").then_some("s1"), "{uri}");
    }
    let error = RouteTable::compile(vec![several(4)]).unwrap_err();
    assert_eq!(error.key, "key", "not every path has the key's part: {error}");
    let twice = RouteSpec { paths: vec!["/a".into(), "/a".into()], ..spec("r", "/") };
    assert_eq!(RouteTable::compile(vec![twice]).unwrap_err().key, "path");
}

#[test]
fn a_key_may_be_made_of_the_clients_address_and_a_cookie() {
    let key = |template: &str, cookie: &str| key_of(keyed("/x", template), "/x", &[("cookie", cookie)]);
    assert_eq!(key("{client}", ""), Some("203.0.113.9".into()));
    assert_eq!(key("{client}-{cookie.sid}", "a=1; sid=s1; b=2"), Some("203.0.113.9-s1".into()));
    assert_eq!(key("{cookie.sid}", "SID=s1; asid=2"), None, "names of cookies have a case");
    assert_eq!(key("{cookie.sid}", "sid="), None);
    let refused = RouteTable::compile(vec![keyed("/x", "{cookie.a b}")]).map(|_| ()).unwrap_err();
    assert!(refused.message.contains("not a cookie name"), "{}", refused.message);
}

fn labelled(path: &str, labels: &[(&str, &str)]) -> RouteSpec {
    let labels = labels.iter().map(|&(name, template)| (name.to_owned(), template.to_owned()));
    RouteSpec { labels: labels.collect(), ..spec("r", path) }
}

#[test]
fn a_route_makes_labels_of_what_a_request_brings_and_leaves_out_those_that_it_lacks() {
    let rules = [("room", "{query.room}"), ("tenant", "t-{tenant}"), ("tier", "gold"), ("user", "{header.x-user}")];
    let table = table(vec![labelled("/{tenant}/ws", &rules)]);
    let of = |uri: &str| {
        let parts = Request::builder().uri(uri).header("x-user", "7").body(()).unwrap().into_parts().0;
        table.find(None, &parts, CLIENT).map(|found| found.labels)
    };
    let relabel = |pairs: &[(&str, &str)]| {
        let mut labels = Relabel::default();
        for (name, value) in pairs {
            labels.set(name, value).unwrap();
        }
        labels
    };
    let all = relabel(&[("room", "a b"), ("tenant", "t-acme"), ("tier", "gold"), ("user", "7")]);
    assert_eq!(of("/acme/ws?room=a+b"), Ok(all));
    let roomless = relabel(&[("tenant", "t-acme"), ("tier", "gold"), ("user", "7")]);
    assert_eq!(of("/acme/ws?room="), Ok(roomless));
    for bad in ["/acme/ws?room=a%0Ab", &format!("/acme/ws?room={}", "a".repeat(257))] {
        assert_eq!(of(bad), Err(NoRoute::NoLabel(LabelError::Value("room".into()))), "{bad}");
    }
    assert!(matches!(of("/acme/ws?room=a&room=b"), Err(NoRoute::Unclear(_))));
}

#[test]
fn a_label_that_could_only_fail_later_is_refused_with_the_configuration() {
    for (name, template) in
        [("a b", "x"), ("", "x"), ("room", ""), ("room", "{nope}"), ("room", "{alias}"), ("room", "{auth.x}")]
    {
        let error = RouteTable::compile(vec![labelled("/ws", &[(name, template)])]).expect_err(template);
        assert_eq!(error.key, "labels", "{name} {template}: {error}");
    }
}
