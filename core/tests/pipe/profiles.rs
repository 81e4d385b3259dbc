//! Each built-in profile by a script of its protocol: what the next worker is told, in which order, and what the client
//! does not hear twice.

use holdline_core::conversation::{Conversation, ConversationKind, Profile, Prologue, PrologueBounds};
use holdline_core::pipe::{EndedBy, Fact, LinkLoss};

use crate::bench::{B, Bench, C, closed, secs, text, texts};
use crate::prologue::profiled;
use crate::wire::Item;

/// The client and the worker say these in turn, and everything is confirmed.
fn talked(profile: &str, said: &[(char, &str)]) -> Bench {
    let mut bench = profiled(profile);
    for (who, payload) in said {
        match who {
            'c' => bench.client_says(payload),
            _ => bench.worker_says(payload),
        }
    }
    bench.settle();
    bench.worker_got();
    bench.client_got();
    bench
}

/// The worker dies, and another is there: what it is told before it has said anything.
fn next_hears(bench: &mut Bench) -> Vec<Item> {
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    bench.worker_got()
}

fn binary(payload: &[u8]) -> Item {
    Item::Binary(payload.to_vec())
}

#[test]
fn socket_io_connects_each_namespace_again_behind_the_open_packet_of_the_next_worker() {
    let open = r#"0{"sid":"a","pingInterval":25000}"#;
    let mut bench = talked(
        "socket.io",
        &[
            ('w', open),
            ('c', r#"40{"token":"t"}"#),
            ('w', r#"40{"sid":"b"}"#),
            ('c', "40/admin,"),
            ('w', r#"40/admin,{"sid":"c"}"#),
            ('c', "40/gone,"),
            ('w', r#"40/gone,{"sid":"d"}"#),
            ('c', "41/gone,"),
            ('c', r#"42["join","room"]"#),
        ],
    );
    assert_eq!(next_hears(&mut bench), [], "the worker speaks first");
    bench.worker_says(r#"0{"sid":"x"}"#);
    assert_eq!(bench.worker_got(), texts(&[r#"40{"token":"t"}"#]));
    bench.worker_says(r#"40{"sid":"y"}"#);
    assert_eq!(bench.worker_got(), texts(&["40/admin,"]));
    bench.client_says(r#"42["hello"]"#);
    assert_eq!(bench.worker_got(), []);
    bench.worker_says(r#"40/admin,{"sid":"z"}"#);
    assert_eq!(bench.worker_got(), texts(&[r#"42["hello"]"#]));
    bench.worker_says(r#"42["news"]"#);
    assert_eq!(bench.client_got(), texts(&[r#"42["news"]"#]));
}

#[test]
fn a_namespace_that_the_next_worker_refuses_holds_nothing_up() {
    let mut bench = talked(
        "socket.io",
        &[('w', r#"0{"sid":"a"}"#), ('c', "40/a,"), ('w', "40/a,{}"), ('c', "40/b,"), ('w', "40/b,{}")],
    );
    next_hears(&mut bench);
    bench.worker_says(r#"0{"sid":"x"}"#);
    bench.worker_says(r#"44/a,{"message":"no"}"#);
    assert_eq!(bench.worker_got(), texts(&["40/a,", "40/b,"]));
    assert_eq!(bench.client_got(), texts(&[r#"44/a,{"message":"no"}"#]));
}

#[test]
fn sockjs_says_nothing_again_and_holds_back_the_second_open() {
    let mut bench = talked("sockjs", &[('w', "o"), ('c', r#"["a"]"#), ('w', r#"a["b"]"#)]);
    bench.worker_dies(LinkLoss::Reset);
    bench.client_says(r#"["c"]"#);
    bench.attach(B);
    assert_eq!(bench.worker_got(), []);
    bench.worker_says("o");
    assert_eq!(bench.worker_got(), texts(&[r#"["c"]"#]));
    bench.worker_says("h");
    assert_eq!(bench.client_got(), texts(&["h"]));
}

#[test]
fn stomp_connects_and_subscribes_again() {
    let connect = "CONNECT\naccept-version:1.2\n\n\0";
    let subscribe = |id: &str| format!("SUBSCRIBE\nid:{id}\ndestination:/topic/a\n\n\0");
    let mut bench = talked(
        "stomp",
        &[
            ('c', connect),
            ('w', "CONNECTED\nversion:1.2\n\n\0"),
            ('c', &subscribe("0")),
            ('c', &subscribe("1")),
            ('c', "UNSUBSCRIBE\nid:0\n\n\0"),
            ('c', "SEND\ndestination:/a\n\nSUBSCRIBE\nid:9\n\n\0"),
            ('c', "\n"),
        ],
    );
    assert_eq!(next_hears(&mut bench), texts(&[connect]));
    bench.worker_says("CONNECTED\nversion:1.2\n\n\0");
    assert_eq!(bench.worker_got(), [text(&subscribe("1"))]);
    assert_eq!(bench.client_got(), []);
}

#[test]
fn nats_connects_and_subscribes_again_behind_the_info_of_the_next_server() {
    let mut bench = talked(
        "nats",
        &[
            ('w', "INFO {\"server_id\":\"A\"}\r\n"),
            ('c', "CONNECT {\"verbose\":false}\r\nPING\r\n"),
            ('w', "PONG\r\n"),
            ('c', "SUB a.* 1\r\nSUB b q 2\r\n"),
            ('c', "UNSUB 1\r\nSUB c 3\r\nUNSUB 3 5\r\n"),
            ('c', "PUB x 10\r\nSUB evil 9\r\n"),
        ],
    );
    assert_eq!(next_hears(&mut bench), []);
    bench.worker_says("INFO {\"server_id\":\"B\"}\r\nPING\r\n");
    let told = ["CONNECT {\"verbose\":false}\r\n", "SUB b q 2\r\n", "SUB c 3\r\n", "UNSUB 3 5\r\n"];
    assert_eq!(bench.worker_got(), texts(&told));
    assert_eq!(bench.client_got(), texts(&["PING\r\n"]), "what came with the INFO passes");
}

#[test]
fn a_stream_that_is_replayed_from_the_middle_of_an_element_is_given_the_first_half_too() {
    let mut bench = talked("nats", &[('w', "INFO {}\r\n"), ('c', "CONNECT {}\r\n"), ('c', "PUB a 6\r\nabc")]);
    bench.client_says("def\r\nSUB a 1\r\n");
    bench.worker_got();
    next_hears(&mut bench);
    bench.worker_says("INFO {}\r\n");
    assert_eq!(bench.worker_got(), texts(&["CONNECT {}\r\n", "PUB a 6\r\nabc", "def\r\nSUB a 1\r\n"]));
}

#[test]
fn a_client_that_has_half_an_element_of_a_stream_is_not_given_another_half() {
    let mut bench = talked("nats", &[('w', "INFO {}\r\n"), ('c', "CONNECT {}\r\n")]);
    bench.worker_says("MSG a 1 6\r\nabc");
    bench.client_got();
    bench.worker_dies(LinkLoss::Reset);
    assert_eq!(bench.client_got(), [closed(1012, "backend lost")]);
}

/// Packets of MQTT 3.1.1.
mod mqtt {
    pub const CONNECT: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c";
    pub const CONNACK: &[u8] = b"\x20\x02\x00\x00";

    pub fn subscribe(id: u8, topics: &[&str]) -> Vec<u8> {
        let mut body = vec![0, id];
        for topic in topics {
            body.extend([0, topic.len() as u8]);
            body.extend(topic.bytes());
            body.push(1);
        }
        [&[0x82, body.len() as u8][..], &body].concat()
    }

    pub fn suback(id: u8) -> Vec<u8> {
        vec![0x90, 3, 0, id, 1]
    }

    pub fn publish(first: u8, id: u8) -> Vec<u8> {
        vec![first, 7, 0, 1, b'a', 0, id, b'h', b'i']
    }
}

fn mqtt_talked() -> Bench {
    let mut bench = profiled("mqtt");
    // A client library may send each field by itself.
    for part in mqtt::CONNECT.chunks(3) {
        bench.client_frame(0x82, part);
    }
    bench.worker_frame(0x82, mqtt::CONNACK);
    bench.client_frame(0x82, &mqtt::subscribe(1, &["a", "b"]));
    bench.worker_frame(0x82, &mqtt::suback(1));
    bench.client_frame(0x82, &[0xA2, 5, 0, 2, 0, 1, b'a']);
    bench.client_frame(0x82, &mqtt::publish(0x32, 3));
    bench.client_frame(0x82, &mqtt::publish(0x32, 4));
    bench.client_frame(0x82, &mqtt::publish(0x30, 5));
    bench.worker_frame(0x82, &[0x40, 2, 0, 3]);
    bench.settle();
    bench.worker_got();
    bench.client_got();
    bench
}

#[test]
fn mqtt_connects_subscribes_and_publishes_again_what_was_not_acknowledged() {
    let mut bench = mqtt_talked();
    assert_eq!(next_hears(&mut bench), [binary(mqtt::CONNECT)]);
    bench.worker_frame(0x82, mqtt::CONNACK);
    let told = [binary(&mqtt::subscribe(1, &["b"])), binary(&mqtt::publish(0x3A, 4))];
    assert_eq!(bench.worker_got(), told, "the topic that is left, and DUP is set");
    bench.worker_frame(0x82, &[mqtt::suback(1), vec![0x40, 2, 0, 4]].concat());
    assert_eq!(bench.client_got(), [binary(&[0x40, 2, 0, 4])], "the first answer to each, and no second one");
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(C);
    bench.worker_frame(0x82, mqtt::CONNACK);
    assert_eq!(bench.worker_got(), [binary(mqtt::CONNECT), binary(&mqtt::subscribe(1, &["b"]))]);
}

#[test]
fn mqtt_5_has_properties_that_are_no_topics() {
    let mut bench = profiled("mqtt");
    let connect = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01c";
    bench.client_frame(0x82, connect);
    bench.worker_frame(0x82, b"\x20\x03\x00\x00\x00");
    let subscribe = b"\x82\x09\x00\x01\x02\x0b\x07\x00\x01a\x01";
    bench.client_frame(0x82, subscribe);
    bench.worker_frame(0x82, b"\x90\x04\x00\x01\x00\x01");
    bench.settle();
    bench.client_got();
    assert_eq!(next_hears(&mut bench), [binary(connect)]);
    bench.worker_frame(0x82, b"\x20\x03\x00\x00\x00");
    assert_eq!(bench.worker_got(), [binary(subscribe)]);
    bench.worker_frame(0x82, b"\x90\x04\x00\x01\x00\x01");
    assert_eq!(bench.client_got(), []);
}

#[test]
fn mqtt_5_lets_no_client_use_topic_aliases_since_the_next_broker_does_not_know_them() {
    let mut bench = profiled("mqtt");
    bench.client_frame(0x82, b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01c");
    // Behind a reason string and a user property: ten aliases, and a maximum of packets.
    let connack = b"\x20\x14\x00\x00\x11\x1f\x00\x01r\x26\x00\x01k\x00\x01v\x22\x00\x0a\x21\x00\x05";
    bench.worker_frame(0x82, connack);
    let without = b"\x20\x11\x00\x00\x0e\x1f\x00\x01r\x26\x00\x01k\x00\x01v\x21\x00\x05";
    assert_eq!(bench.client_got(), [binary(without)]);
    bench.settle();
    bench.worker_dies(LinkLoss::Reset);
    bench.attach(B);
    bench.worker_frame(0x82, connack);
    assert_eq!(bench.client_got(), [], "it has had one");
}

#[test]
fn mqtt_5_ends_with_its_broker_where_half_of_an_offer_of_aliases_has_been_heard() {
    let mut bench = profiled("mqtt");
    bench.client_frame(0x82, b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01c");
    bench.worker_frame(0x82, b"\x20\x06\x00\x00");
    assert!(bench.pipe.moves());
    bench.worker_frame(0x82, b"\x03\x22\x00\x0a");
    assert!(!bench.pipe.moves());
}

#[test]
fn a_stream_that_does_not_parse_ends_with_its_worker() {
    let mut bench = profiled("mqtt");
    bench.client_frame(0x82, b"\x10\xff\xff\xff\xff\xff");
    assert!(!bench.pipe.moves());
    bench.client_frame(0x82, b"more");
    bench.worker_dies(LinkLoss::Reset);
    assert_eq!(bench.client_got(), [closed(1012, "backend lost")]);
}

#[test]
fn trpc_begins_a_subscription_again_behind_the_last_event_and_ends_a_call_under_way() {
    let subscription = r#"{"id":1,"method":"subscription","params":{"path":"on","input":{}}}"#;
    let mut bench = talked(
        "trpc",
        &[
            ('c', r#"{"method":"connectionParams","data":{"token":"t"}}"#),
            ('c', subscription),
            ('w', r#"{"id":1,"result":{"type":"started"}}"#),
            ('w', r#"{"id":1,"result":{"type":"data","id":"e7","data":1}}"#),
            ('c', r#"[{"id":2,"method":"subscription","params":{}},{"id":3,"method":"query","params":{}}]"#),
            ('w', r#"{"id":3,"result":{"data":1}}"#),
            ('c', r#"{"id":2,"method":"subscription.stop"}"#),
            ('c', r#"{"id":4,"method":"mutation","params":{}}"#),
        ],
    );
    let again = r#"{"id":1,"method":"subscription","params":{"path":"on","input":{},"lastEventId":"e7"}}"#;
    let told = [text(r#"{"method":"connectionParams","data":{"token":"t"}}"#), text(again)];
    assert_eq!(next_hears(&mut bench), told);
    bench.client_says(r#"{"id":5,"method":"query","params":{}}"#);
    assert_eq!(bench.worker_got(), [], "the subscription has not begun to listen");
    bench.worker_says(r#"{"id":1,"result":{"type":"started"}}"#);
    assert_eq!(bench.worker_got(), texts(&[r#"{"id":5,"method":"query","params":{}}"#]));
    let heard = bench.client_got();
    assert_eq!(heard.len(), 1, "{heard:?}");
    let Item::Text(error) = &heard[0] else { panic!("{heard:?}") };
    assert!(error.starts_with(br#"{"id":4,"error":{"code":-32603"#), "{heard:?}");
}

#[test]
fn ocpp_boots_again_at_the_next_central_system() {
    let boot = r#"[2,"19","BootNotification",{"chargePointModel":"x"}]"#;
    let mut bench = talked(
        "ocpp1.6",
        &[('c', boot), ('w', r#"[3,"19",{"status":"Accepted"}]"#), ('c', r#"[2,"20","Heartbeat",{}]"#)],
    );
    bench.worker_says(r#"[3,"20",{}]"#);
    bench.client_got();
    assert_eq!(next_hears(&mut bench), texts(&[boot]));
    bench.worker_says(r#"[2,"7","Reset",{}]"#);
    bench.worker_says(r#"[3,"19",{"status":"Accepted"}]"#);
    assert_eq!(bench.client_got(), texts(&[r#"[2,"7","Reset",{}]"#]));
}

#[test]
fn lsp_initializes_and_opens_again_what_is_open() {
    let initialize = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{}}"#;
    let initialized = r#"{"jsonrpc":"2.0","method":"initialized","params":{}}"#;
    let of = |method: &str, uri: &str| {
        format!(r#"{{"jsonrpc":"2.0","method":"textDocument/{method}","params":{{"textDocument":{{"uri":"{uri}"}}}}}}"#)
    };
    let answer = r#"{"jsonrpc":"2.0","id":0,"result":{"capabilities":{}}}"#;
    let mut bench = talked(
        "lsp",
        &[
            ('c', initialize),
            ('w', answer),
            ('c', initialized),
            ('c', &of("didOpen", "a")),
            ('c', &of("didOpen", "b")),
            ('c', &of("didChange", "a")),
            ('c', &of("didChange", "a")),
            ('c', &of("didClose", "b")),
        ],
    );
    assert_eq!(next_hears(&mut bench), texts(&[initialize]));
    bench.worker_says(answer);
    let told = [initialized.to_owned(), of("didOpen", "a"), of("didChange", "a"), of("didChange", "a")];
    assert_eq!(bench.worker_got(), told.map(|it| text(&it)));
    assert_eq!(bench.client_got(), []);
}

#[test]
fn lsp_keeps_the_newest_whole_text_of_a_document_and_the_changes_behind_it() {
    let change = |change: &str| {
        let document = r#"{"uri":"a","version":2}"#;
        let method = "textDocument/didChange";
        format!(r#"{{"method":"{method}","params":{{"textDocument":{document},"contentChanges":[{change}]}}}}"#)
    };
    let open = r#"{"method":"textDocument/didOpen","params":{"textDocument":{"uri":"a","text":""}}}"#;
    let (first, second) = (change(r#"{"text":"one"}"#), change(r#"{"text":"two"}"#));
    let part = change(r#"{"range":{},"text":"t"}"#);
    let said = [('c', open), ('c', &*first), ('c', &*part), ('c', &*second), ('c', &*part), ('c', &*part)];
    let mut bench = talked("lsp", &said);
    assert_eq!(next_hears(&mut bench), texts(&[open, &second, &part, &part]));
}

#[test]
fn hocuspocus_authenticates_and_synchronizes_each_document_again() {
    let message = |document: &str, rest: &[u8]| [&[document.len() as u8], document.as_bytes(), rest].concat();
    let mut bench = profiled("hocuspocus");
    for document in ["a", "b"] {
        bench.client_frame(0x82, &message(document, &[2, 0, 1, b't']));
        bench.worker_frame(0x82, &message(document, &[2, 2, 1, b'w']));
        bench.client_frame(0x82, &message(document, &[0, 0, 1, 7]));
        bench.client_frame(0x82, &message(document, &[1, 1, 5]));
        bench.client_frame(0x82, &message(document, &[1, 1, 6]));
        bench.client_frame(0x82, &message(document, &[0, 2, 9]));
    }
    bench.client_frame(0x82, &message("b", &[7, 0]));
    bench.settle();
    bench.client_got();
    bench.worker_got();
    assert_eq!(next_hears(&mut bench), [binary(&message("a", &[2, 0, 1, b't']))]);
    bench.worker_frame(0x82, &message("a", &[2, 2, 1, b'w']));
    assert_eq!(bench.worker_got(), [binary(&message("a", &[0, 0, 1, 7])), binary(&message("a", &[1, 1, 6]))]);
    assert_eq!(bench.client_got(), []);
}

#[test]
fn a_client_of_hocuspocus_is_known_by_a_token_that_fills_its_first_message() {
    for (first, profile) in [
        (&b"\x03doc\x02\x00\x05token"[..], Some("hocuspocus")),
        (b"\x03doc\x02\x00\x00", Some("hocuspocus")),
        // More or less than the token, no name, another type, a step of a synchronization as y-websocket has it too.
        (b"\x03doc\x02\x00\x05token.", None),
        (b"\x03doc\x02\x00\x05toke", None),
        (b"\x00\x02\x00\x01t", None),
        (b"\x03doc\x03\x00\x01t", None),
        (b"\x03d\x00c\x02\x00\x01t", None),
        (b"\x03doc\x00\x00\x01\x00", None),
        (b"\x00\x00\x01\x00", None),
    ] {
        let mut bench = Bench::new();
        bench.operator(|pipe, _| pipe.converse(Conversation::Undecided, "unknown"));
        bench.client_frame(0x82, first);
        assert_eq!(bench.pipe.conversation().1, profile, "{first:?}");
    }
}

#[test]
fn the_first_message_shows_what_a_conversation_is_only_where_that_is_certain() {
    use ConversationKind::{Profile, Stateful, Stateless};
    let lsp = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"processId":1,"capabilities":{}}}"#;
    let mcp = r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"capabilities":{},"protocolVersion":"1"}}"#;
    for (who, first, kind, profile) in [
        ('w', r#"0{"sid":"a"}"#, Profile, Some("socket.io")),
        ('w', "INFO {}\r\n", Profile, Some("nats")),
        ('w', r#"["setup", {}]"#, Stateful, None),
        ('c', r#"["stdin", "ls\n"]"#, Stateful, None),
        ('c', r#"["set_size", 24, 80, 600, 800]"#, Stateful, None),
        ('w', "o", Stateless, None),
        ('w', "hello", Stateless, None),
        ('c', r#"0{"sid":"a"}"#, Stateless, None),
        ('c', r#"{"id":1,"jsonrpc":"2.0","method":"subscription","params":{"path":"on"}}"#, Profile, Some("trpc")),
        ('c', r#"[{"id":1,"method":"query","params":{"path":"a"}}]"#, Profile, Some("trpc")),
        ('c', r#"{"id":1,"method":"query","params":{}}"#, Stateless, None),
        ('c', lsp, Profile, Some("lsp")),
        ('c', mcp, Stateless, None),
        ('c', r#"{"id":1,"guid":"","method":"initialize","params":{"sdkLanguage":"python"}}"#, Stateful, None),
        ('c', r#"{"id":1,"jsonrpc":"2.0","method":"eth_subscribe","params":["logs"]}"#, Profile, Some("eth-jsonrpc")),
        ('c', r#"{"id":1,"jsonrpc":"2.0","method":"eth_chainId"}"#, Profile, Some("eth-jsonrpc")),
        ('c', r#"{"id":1,"method":"eth_subscribe","params":["newHeads"]}"#, Stateless, None),
    ] {
        let mut bench = Bench::new();
        bench.operator(|pipe, _| pipe.converse(Conversation::Undecided, "unknown"));
        match who {
            'w' => bench.worker_says(first),
            _ => bench.client_says(first),
        }
        assert_eq!(bench.pipe.conversation(), (kind, profile), "{first}");
        let passed = [bench.client_got(), bench.worker_got()].concat();
        assert_eq!(passed, texts(&[first]));
    }
}

#[test]
fn a_client_of_a_stateful_conversation_is_awaited_only_where_it_can_go_on_amid_it() {
    for opens_each_connection in [false, true] {
        let mut bench = Bench::with(|settings| settings.client_grace = Some(secs(60)));
        bench.operator(|pipe, _| pipe.converse(Conversation::Stateful { opens_each_connection }, "request"));
        assert_eq!(bench.pipe.awaits_client(), !opens_each_connection);
        bench.client_vanishes();
        assert_eq!(bench.client_attaches(), !opens_each_connection);
    }
    // A first message that shows it shows this as well.
    let mut bench = Bench::with(|settings| settings.client_grace = Some(secs(60)));
    bench.operator(|pipe, _| pipe.converse(Conversation::Undecided, "unknown"));
    assert!(bench.pipe.awaits_client());
    bench.worker_says(r#"["setup", {}]"#);
    assert!(!bench.pipe.awaits_client());
}

#[test]
fn a_client_whose_protocol_opens_each_connection_is_awaited_no_longer_than_its_connection_lasts() {
    for (name, who, first, is_awaited) in [
        ("socket.io", 'w', r#"0{"sid":"a"}"#, false),
        ("sockjs", 'w', "o", false),
        ("nats", 'w', "INFO {}\r\n", false),
        ("stomp", 'c', "CONNECT\n\n\0", false),
        ("graphql-transport-ws", 'c', r#"{"type":"connection_init"}"#, false),
        ("graphql-ws", 'c', r#"{"type":"connection_init"}"#, false),
        ("lsp", 'c', r#"{"id":1,"method":"initialize"}"#, false),
        ("ocpp1.6", 'c', r#"[2,"1","BootNotification",{}]"#, true),
        ("eth-jsonrpc", 'c', r#"{"id":1,"jsonrpc":"2.0","method":"eth_chainId"}"#, true),
    ] {
        let mut bench = Bench::with(|settings| settings.client_grace = Some(secs(60)));
        let prologue = Prologue::new(Profile::named(name).unwrap(), PrologueBounds::default());
        bench.operator(|pipe, _| pipe.converse(Conversation::Profiled(Box::new(prologue)), "route"));
        match who {
            'w' => bench.worker_says(first),
            _ => bench.client_says(first),
        }
        assert_eq!(bench.pipe.awaits_client(), is_awaited, "{name}");
        bench.client_vanishes();
        let is_over = bench.facts.iter().any(|fact| matches!(fact, Fact::Ended { by: EndedBy::Client, .. }));
        assert_eq!(is_over, !is_awaited, "{name}");
        assert_eq!(bench.client_attaches(), is_awaited, "{name}");
    }
}
