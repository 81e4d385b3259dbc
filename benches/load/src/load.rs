//! The loads that proxies are compared under.

/// How clients come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    Plain,
    Tls,
    Http2,
}

impl Way {
    /// What a load's name begins with if its clients come another way than plain.
    const PREFIXES: [(&str, Self); 2] = [("tls:", Self::Tls), ("h2:", Self::Http2)];

    /// The way of a load, and what its clients do then.
    pub fn split(load: &str) -> (Self, &str) {
        let found = Self::PREFIXES.iter().find_map(|(prefix, way)| Some((*way, load.strip_prefix(prefix)?)));
        found.unwrap_or((Self::Plain, load))
    }

    /// How a table says it.
    pub const fn in_words(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Tls => " by TLS",
            Self::Http2 => " over HTTP/2",
        }
    }
}

/// What one connection does.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Load {
    /// Round trips with so many in flight.
    Echo { size: usize, in_flight: u64 },
    /// Round trips at a fixed rate, whatever the answers do.
    Paced { size: usize, per_second: f64 },
    /// The backend sends; 0 frames per second is as fast as it goes.
    Push { size: usize, fps: u32 },
    /// The client sends as fast as it goes.
    Upload { size: usize },
    /// No side says anything.
    Quiet,
}

/// A load as the tables name it.
pub struct Scenario {
    pub name: &'static str,
    /// What is measured, and on how many connections.
    pub load: &'static str,
    /// What runs beside it, unmeasured but for the CPU.
    pub beside: Option<&'static str>,
    /// CPU per message as a ratio to the better peer.
    pub target: Option<f64>,
}

const fn scenario(name: &'static str, load: &'static str, target: f64) -> Scenario {
    Scenario { name, load, beside: None, target: Some(target) }
}

pub const SCENARIOS: &[Scenario] = &[
    scenario("64 B echo", "echo:64:1x50", 1.0),
    scenario("64 B at 100/s", "paced:64:100x50", 1.0),
    scenario("64 B, 32 in flight", "echo:64:32x20", 1.1),
    scenario("1 KiB, 16 in flight", "echo:1024:16x20", 0.9),
    scenario("64 KiB, 4 in flight", "echo:65536:4x20", 0.95),
    scenario("30 KiB push 60 fps", "push:30720:60x50", 0.9),
    scenario("30 KiB push flat out", "push:30720:0x20", 0.9),
    scenario("226 KB video 4 fps", "push:226000:4x50", 0.9),
    scenario("226 KB video 60 fps", "push:226000:60x8", 0.9),
    scenario("1 KiB upload", "upload:1024:0x20", 1.15),
    scenario("64 KiB upload", "upload:65536:0x20", 1.15),
    Scenario { name: "tap, no video", load: "paced:64:50x4", beside: None, target: None },
    Scenario { name: "tap beside video", load: "paced:64:50x4", beside: Some("push:226000:60x8"), target: None },
    scenario("TLS 64 B echo", "tls:echo:64:1x50", 1.0),
    scenario("TLS 30 KiB push 60 fps", "tls:push:30720:60x50", 1.0),
    scenario("TLS 226 KB video 60 fps", "tls:push:226000:60x8", 1.0),
    Scenario { name: "HTTP/2 64 B echo", load: "h2:echo:64:1x50", beside: None, target: None },
    Scenario { name: "HTTP/2 30 KiB push 60 fps", load: "h2:push:30720:60x50", beside: None, target: None },
    Scenario { name: "HTTP/2 226 KB video 60 fps", load: "h2:push:226000:60x8", beside: None, target: None },
];

/// Reads `KIND:SIZE:NUMBERxCONNECTIONS`.
pub fn parse(text: &str) -> anyhow::Result<(Load, usize)> {
    let bad = || anyhow::anyhow!("not a load: {text}");
    let (what, connections) = text.rsplit_once('x').ok_or_else(bad)?;
    let [kind, size, number] = what.split(':').collect::<Vec<_>>()[..] else { return Err(bad()) };
    let size: usize = size.parse()?;
    let load = match kind {
        "echo" => Load::Echo { size, in_flight: number.parse()? },
        "paced" => Load::Paced { size, per_second: number.parse()? },
        "push" => Load::Push { size, fps: number.parse()? },
        "upload" => Load::Upload { size },
        "quiet" => Load::Quiet,
        _ => return Err(bad()),
    };
    Ok((load, connections.parse()?))
}

impl Load {
    /// What to ask the backend for.
    pub fn path(self) -> String {
        match self {
            Self::Echo { .. } | Self::Paced { .. } | Self::Quiet => "/echo".to_owned(),
            Self::Push { size, fps } => format!("/push/{size}/{fps}"),
            Self::Upload { size } => format!("/sink/{size}"),
        }
    }
}
