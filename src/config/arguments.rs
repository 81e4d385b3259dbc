//! A configuration by arguments alone: `holdline serve --to URL … --listen ADDRESS …`.
//!
//! It is the tree that a file would be, with one pool and the default route, so that it is read and judged as a file is.

use super::node::{Entry, Node, Value};
use super::notice::Place;

/// What `holdline serve` was told instead of a file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Arguments {
    /// The backends of the one pool.
    pub to: Vec<String>,
    /// The public listeners; the default one without any.
    pub listen: Vec<String>,
}

impl Arguments {
    /// What a file would say.
    pub(super) fn tree(&self) -> Node {
        let backends = each("--to", &self.to, |place, url| {
            let url = Entry { name: "url".to_owned(), place: place.clone(), node: text(place.clone(), url) };
            Node { place, value: Value::Table(vec![url]) }
        });
        let pool = Node { place: Place::Nowhere, value: Value::Table(vec![entry("backends", Value::List(backends))]) };
        let mut root = vec![entry("pools", Value::List(vec![pool]))];
        if !self.listen.is_empty() {
            let listen = Value::List(each("--listen", &self.listen, text));
            let mut listen = entry("listen", listen);
            listen.node.place = Place::Argument { name: "--listen", number: 1 };
            root.push(entry("server", Value::Table(vec![listen])));
        }
        Node { place: Place::Nowhere, value: Value::Table(root) }
    }
}

fn each(name: &'static str, values: &[String], node: impl Fn(Place, &str) -> Node) -> Vec<Node> {
    let numbered = values.iter().zip(1..);
    numbered.map(|(value, number)| node(Place::Argument { name, number }, value)).collect()
}

fn text(place: Place, text: &str) -> Node {
    Node { place, value: Value::Text(text.to_owned()) }
}

fn entry(name: &str, value: Value) -> Entry {
    Entry { name: name.to_owned(), place: Place::Nowhere, node: Node { place: Place::Nowhere, value } }
}
