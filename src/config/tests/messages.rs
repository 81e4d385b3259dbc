//! What an operator is told about each mistake that people make: the text, and every word of the answer.

use super::*;

/// The errors of `text`, or else its warnings.
fn told(text: &str) -> Vec<String> {
    match read(text) {
        Ok(loaded) => loaded.warnings.iter().map(|warning| format!("warning: {warning}")).collect(),
        Err(invalid) => invalid.errors.iter().map(ToString::to_string).collect(),
    }
}

#[track_caller]
fn says(cases: &[(&str, &[&str])]) {
    for (text, expected) in cases {
        assert_eq!(told(text), *expected, "{text}");
    }
}

#[test]
fn a_slip_in_toml_is_one_error_at_the_bracket_or_the_word_that_is_wrong() {
    says(&[
        (
            "[server]\nlisten = [\"127.0.0.1:8000\"\nthreads = 3\nmax_connections = 5\n[log]\nlevel = \"info\"\n",
            &["proxy.toml:2:10: the array that opens here is not closed; write \"]\" before line 3"],
        ),
        (
            "[server]\nlisten = [\n  \"127.0.0.1:8000\",\n\n[log]\nlevel = \"info\"\n",
            &["proxy.toml:2:10: the array that opens here is not closed; write \"]\" before line 5"],
        ),
        (
            "[server]\nlisten = [\"127.0.0.1:8000\",\n",
            &["proxy.toml:2:10: the array that opens here is not closed; write \"]\" before the end of the file"],
        ),
        (
            "routes = [{ path = \"/a\"\n[log]\n",
            &["proxy.toml:1:11: the inline table that opens here is not closed; write \"}\" before line 2"],
        ),
        (
            "[server]\nlisten = [\"127.0.0.1:8000]\nthreads = 3\n",
            &["proxy.toml:2:27: invalid basic string, expected `\"`"],
        ),
        (
            "[server]\nlisten = [\"a:1\" \"b:2\"]\n",
            &["proxy.toml:2:17: missing comma between array elements, expected `,`"],
        ),
        ("[log]\nlevel = info\n", &["proxy.toml:2:9: a string stands in quotes: write \"info\""]),
        ("[server\nthreads = 3\n", &["proxy.toml:1:8: unclosed table, expected `]`"]),
        ("[server]\nthreads 3\n", &["proxy.toml:2:9: key with no value, expected `=`"]),
        (
            "[server]\nlisten = [1\nthreads = 3\n[log]\nlevel = \n",
            &[
                "proxy.toml:2:10: the array that opens here is not closed; write \"]\" before line 3",
                "proxy.toml:5:9: a value is missing behind \"=\"",
            ],
        ),
    ]);
}

#[test]
fn a_key_that_is_there_twice_is_named_with_the_line_of_the_first() {
    says(&[
        (
            "[log]\nlevel = \"info\"\n\nlevel = \"warn\"\n",
            &["proxy.toml:4:1: duplicate key \"level\": line 2 has it already; remove one"],
        ),
        ("[log]\n[server]\n[log]\n", &["proxy.toml:3:2: duplicate table \"log\": line 1 has it already; remove one"]),
        (
            "[[pools]]\nname = \"a\"\n[[pools]]\nname = \"b\"\nname = \"c\"\n",
            &["proxy.toml:5:1: duplicate key \"name\": line 4 has it already; remove one"],
        ),
        (
            "[server]\nlisten = [\"127.0.0.1:1\"]\ntls.min_version = \"1.2\"\ntls.min_version = \"1.3\"\n",
            &["proxy.toml:4:5: duplicate key \"min_version\": line 3 has it already; remove one"],
        ),
        ("routes = [{ path = \"/a\", path = \"/b\" }]\n", &["proxy.toml:1:26: duplicate key \"path\"; remove one"]),
    ]);
}

#[test]
fn what_clashes_names_the_line_of_the_other() {
    let routes =
        |first: &str, second: &str| format!("[[routes]]\nname = \"a\"\n{first}\n[[routes]]\nname = \"b\"\n{second}\n");
    says(&[
        (
            &routes("path = \"/ws/{x}\"", "path = \"/ws/{y}\""),
            &[
                "proxy.toml:6:8: routes[1].path: `/ws/{y}` means the same paths as `/ws/{x}` of routes[0] (line 1); change one, or give each its own hosts",
            ],
        ),
        (
            &routes("", ""),
            &[
                "proxy.toml:4:1: routes[1].path: `/{*path}` means the same paths as `/{*path}` of routes[0] (line 1); change one, or give each its own hosts",
            ],
        ),
        (
            "[[routes]]\npath = [\"/a/{x}\", \"/a/{y}\"]\n",
            &["proxy.toml:2:8: routes[0].path: `/a/{y}` means the same paths as `/a/{x}` of this route; remove one"],
        ),
        (
            "[[pools]]\n[[pools.backends]]\nurl = \"ws://a:1\"\n[[pools.backends]]\nurl = \"ws://a:1\"\n",
            &[
                "proxy.toml:5:7: pools[0].backends[1].url: is already the URL of pools[0].backends[0] (line 2); remove one",
            ],
        ),
        (
            "[[pools]]\n[[pools]]\n",
            &[
                "proxy.toml:2:1: pools[1].name: \"default\" is already the name of pools[0] (line 1); give each pool its own name",
            ],
        ),
    ]);
    config(&routes("hosts = [\"a.example\"]", "hosts = [\"b.example\"]"));
}

#[test]
fn what_other_routers_write_and_networks_with_host_bits_are_noted() {
    let session = "warning: proxy.toml:2:8: routes[0].path: \"/ws/:session\" is taken letter by letter; for any text in its place write \"/ws/{session}\"";
    let star = "warning: proxy.toml:2:9: routes[0].path: \"/ws/*\" is taken letter by letter; for any text in its place write \"/ws/{*rest}\"";
    says(&[
        ("[[routes]]\npath = \"/ws/:session\"\n", &[session]),
        ("[[routes]]\npath = [\"/ws/*\", \"/b\"]\n", &[star]),
        ("[[routes]]\npath = \"/ws/{session}\"\n", &[]),
        (
            "[server]\ntrusted_proxies = [\"10.0.0.1/8\", \"192.0.2.0/24\", \"::1\"]\n",
            &[
                "warning: proxy.toml:2:20: server.trusted_proxies: \"10.0.0.1/8\" is the whole network 10.0.0.0/8; write that, or \"10.0.0.1\" for the one address",
            ],
        ),
    ]);
}

#[test]
fn one_string_is_a_list_of_one() {
    assert_eq!(config("server.listen = \"127.0.0.1:1\"\n"), config("server.listen = [\"127.0.0.1:1\"]\n"));
    let certificate = "server.tls.listen = \"127.0.0.1:2\"\nserver.tls.certificates = { cert = \"c\", key = \"k\" }\n";
    assert_eq!(config(certificate).server.tls.certificates.len(), 1);
    assert_eq!(config("server.trusted_proxies = \"10.0.0.0/8\"\n").server.trusted_proxies.len(), 1);
    refused(
        "server.listen = \"8000\"\n",
        &[
            "proxy.toml:1:17: server.listen: cannot use \"8000\"; use an address and a port such as \"127.0.0.1:8000\" or \"[::1]:8000\", or \"unix:PATH\"",
        ],
    );
    refused(
        "server.listen = 8000\n",
        &["proxy.toml:1:17: server.listen: cannot use 8000; use a list such as [\"a\", \"b\"]"],
    );
}

#[test]
fn a_variable_that_is_nearly_one_of_ours_is_noted() {
    let told = |name: &str| {
        let loaded =
            Config::read(None, [(name.to_owned(), String::new())]).unwrap_or_else(|invalid| panic!("{invalid}"));
        loaded.warnings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let listen = "environment HOLDLINE_LISTEN: is not read; did you mean HOLDLINE_SERVER__LISTEN or HOLDLINE_SERVER__TLS__LISTEN or HOLDLINE_ADMIN__LISTEN or HOLDLINE_ATTACH__LISTEN?";
    assert_eq!(told("HOLDLINE_LISTEN"), [listen]);
    for (name, meant) in [
        ("HOLDLINE_TOKENS", "HOLDLINE_TOKEN"),
        ("HOLDLINE_CONF", "HOLDLINE_CONFIG"),
        ("HOLDLINE_TOKENS_FILE", "HOLDLINE_ADMIN__TOKENS_FILE"),
        ("HOLDLINE_SERVER_LISTN", "HOLDLINE_SERVER__LISTEN"),
        ("HOLDLINE_POOLS_0_BALANCE", "HOLDLINE_POOLS__0__BALANCE"),
    ] {
        assert_eq!(told(name), [format!("environment {name}: is not read; did you mean {meant}?")]);
    }
    for name in [
        "HOLDLINE_PORT",
        "HOLDLINE_PORT_8000_TCP_ADDR",
        "HOLDLINE_SERVICE_HOST",
        "HOLDLINE_ADMIN_SERVICE_PORT",
        "HOLDLINE_BIN",
        "HOLDLINE_CONFIG",
    ] {
        assert_eq!(told(name), [""; 0], "{name}");
    }
}

#[test]
fn arguments_are_read_and_judged_as_a_file_is() {
    let of = |to: &[&str], listen: &[&str]| {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Config::of_arguments(&Arguments { to: owned(to), listen: owned(listen) })
    };
    let loaded = of(&["ws://a:1", "ws://b:2"], &["127.0.0.1:7"]).unwrap_or_else(|invalid| panic!("{invalid}"));
    let file = "server.listen = \"127.0.0.1:7\"\n[[pools]]\n[[pools.backends]]\nurl = \"ws://a:1\"\n[[pools.backends]]\nurl = \"ws://b:2\"\n";
    assert_eq!(loaded.config, config(file));
    assert_eq!(loaded.sources.load_again().as_ref(), Ok(&loaded));
    let wrong = of(&["ws://a:1", "localhost:2", "ws://a:1"], &["8000"]).expect_err("three mistakes").to_string();
    assert_eq!(
        wrong,
        "--listen: server.listen: cannot use \"8000\"; use an address and a port such as \"127.0.0.1:8000\" or \"[::1]:8000\", or \"unix:PATH\"\n\
         --to number 2: pools[0].backends[1].url: the URL of a backend begins with \"ws://\", \"wss://\" or \"unix:/\", as in \"ws://127.0.0.1:9001\" or \"unix:/run/w.sock\"\n\
         --to number 3: pools[0].backends[2].url: is already the URL of pools[0].backends[0]; remove one\n\
         3 errors"
    );
}
