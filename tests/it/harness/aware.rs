//! A client that speaks the aware protocol over a bare wire: it numbers what it says, and keeps what comes.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::{Said, Wire, within};

/// An aware client, and all that it must know to come back.
#[derive(Debug)]
pub struct AwareClient {
    pub wire: Wire,
    pub address: SocketAddr,
    pub path: String,
    pub id: String,
    pub token: String,
    pub epoch: u64,
    /// The last number received, and what the messages said.
    pub rx: u64,
    pub got: Vec<String>,
    /// What it has said; the first has the number 1.
    pub sent: Vec<String>,
    /// Control words that came, without acknowledgements.
    pub words: Vec<Value>,
    /// What was acknowledged last: received, and confirmed by the backend.
    pub acked: (u64, u64),
}

/// What an aware client offers for the application's own subprotocol `chat`.
pub const OFFER: &str = "holdline.v1+chat, chat";

impl AwareClient {
    /// A client on a new pipe that has been welcomed.
    pub async fn open(address: SocketAddr, path: &str) -> Self {
        let wire = Wire::connect(address, path, &[("sec-websocket-protocol", OFFER)]).await;
        assert_eq!(wire.head.header("sec-websocket-protocol"), "holdline.v1+chat");
        let mut client = Self {
            wire,
            address,
            path: path.to_owned(),
            id: String::new(),
            token: String::new(),
            epoch: 0,
            rx: 0,
            got: Vec::new(),
            sent: Vec::new(),
            words: Vec::new(),
            acked: (0, 0),
        };
        client.word(&json!({"t": "hello", "v": 1})).await;
        let welcome = client.next_word("welcome").await;
        client.id = welcome["id"].as_str().unwrap().to_owned();
        client.adopt(&welcome);
        client
    }

    fn adopt(&mut self, word: &Value) {
        self.token = word["token"].as_str().unwrap().to_owned();
        self.epoch = word["epoch"].as_u64().unwrap();
    }

    /// What its hello says when it comes back.
    pub fn hello(&self) -> Value {
        json!({"t": "hello", "v": 1, "resume": {
            "id": self.id, "token": self.token, "epoch": self.epoch, "rx": self.rx,
            "tx": [1, self.sent.len() + 1],
        }})
    }

    /// Another connection that names its pipe, and says this first.
    pub async fn knock(&self, hello: &Value) -> Wire {
        let offer = format!("holdline.v1+chat, holdline.pipe.{}, chat", self.id);
        let mut wire = Wire::connect(self.address, &self.path, &[("sec-websocket-protocol", &offer)]).await;
        assert_eq!(wire.head.header("sec-websocket-protocol"), "holdline.v1+chat");
        wire.text(&format!("!{hello}")).await;
        wire
    }

    /// Comes back on another connection, and says again what the proxy has not received.
    pub async fn come_back(&mut self) {
        self.wire = self.knock(&self.hello()).await;
        let resumed = self.next_word("resumed").await;
        self.adopt(&resumed);
        let rx = resumed["rx"].as_u64().unwrap();
        for number in rx as usize + 1..=self.sent.len() {
            let text = format!("{number};{}", self.sent[number - 1]);
            self.wire.text(&text).await;
        }
    }

    /// Loses its connection without a word.
    pub fn cut(&self) {
        socket2::SockRef::from(&self.wire.stream).shutdown(std::net::Shutdown::Both).unwrap();
    }

    /// Says a control word.
    pub async fn word(&mut self, word: &Value) {
        self.wire.text(&format!("!{word}")).await;
    }

    /// Acknowledges everything that has come.
    pub async fn ack(&mut self) {
        let n = self.rx;
        self.word(&json!({"t": "ack", "n": n})).await;
    }

    /// Says a message.
    pub async fn say(&mut self, text: &str) {
        self.sent.push(text.to_owned());
        let text = format!("{};{text}", self.sent.len());
        self.wire.text(&text).await;
    }

    /// Takes in one thing that comes; what it was, if it is neither a message nor a word.
    async fn take_in(&mut self) -> Option<Said> {
        let text = match self.wire.hear().await {
            Said::Text(text) => text,
            other => return Some(other),
        };
        if let Some(word) = text.strip_prefix('!') {
            let word: Value = serde_json::from_str(word).unwrap();
            match word["t"].as_str().unwrap() {
                "ack" => self.acked = (word["n"].as_u64().unwrap(), word["d"].as_u64().unwrap()),
                _ => self.words.push(word),
            }
            return None;
        }
        let (number, payload) = text.split_once(';').unwrap();
        let number: u64 = number.parse().unwrap();
        assert_eq!(number, self.rx + 1, "a number twice, or one missing without a gap");
        self.rx = number;
        self.got.push(payload.to_owned());
        None
    }

    /// Takes in what comes until `holds`.
    pub async fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !holds(self) {
                if let Some(other) = self.take_in().await {
                    panic!("{what}: {other:?}");
                }
            }
        };
        within(what, waiting).await;
    }

    /// The next word of this name, which may have come already.
    pub async fn next_word(&mut self, name: &str) -> Value {
        self.until(name, |it| it.words.iter().any(|word| word["t"] == name)).await;
        let at = self.words.iter().position(|word| word["t"] == name).unwrap();
        self.words.remove(at)
    }

    /// What ends the connection; words and messages before it are taken in.
    pub async fn end(&mut self) -> Said {
        loop {
            if let Some(end) = self.take_in().await {
                return end;
            }
        }
    }
}
