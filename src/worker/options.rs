//! The worker's command line, which is also its library settings.

use std::{collections::HashMap, net::SocketAddr, path::PathBuf, str::FromStr};

use clap::{Args, Parser};

/// How a demo worker runs; [`Default`] is the command line without arguments.
#[derive(Args, Debug, Clone)]
pub struct Options {
    /// Address to listen on; port 0 takes a free one, printed on stdout
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Register with Holdline's admin API at this URL (bearer token from HOLDLINE_TOKEN)
    #[arg(long, value_name = "URL")]
    pub register: Option<String>,
    /// The URL that is registered, instead of ws:// and the address we listen on
    #[arg(long, value_name = "URL")]
    pub advertise: Option<String>,
    /// The backend's id in Holdline; the name if not given
    #[arg(long)]
    pub id: Option<String>,
    /// What the screens show as the worker's name; worker-PORT if not given
    #[arg(long)]
    pub name: Option<String>,
    /// The pool to register in
    #[arg(long, default_value = "default")]
    pub pool: String,
    /// Sessions served, or key=session where the proxy's key has another name here; none means any
    #[arg(long, value_name = "SESSION,KEY=SESSION", value_delimiter = ',')]
    pub serves: Vec<Served>,
    /// Labels to register with
    #[arg(long = "label", value_name = "NAME=VALUE", value_delimiter = ',', value_parser = label)]
    pub labels: Vec<(String, String)>,
    /// The lease asked for
    #[arg(long, default_value = "15s")]
    pub lease: String,
    /// Colour of the screens, as a hue in degrees; from the name if not given
    #[arg(long)]
    pub hue: Option<u32>,
    /// The picture's size in pixels, rounded down to multiples of 16
    #[arg(long, default_value = "528x1136")]
    pub size: Size,
    /// JPEG quality, 1 to 100
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(u8).range(1..=100))]
    pub quality: u8,
    /// Bytes of a video message
    #[arg(long, default_value_t = 226_000, value_parser = clap::value_parser!(u32).range(1..=16_000_000))]
    pub frame_bytes: u32,
    /// Frames a second where the query doesn't say (?fps=)
    #[arg(long, default_value_t = 4.0)]
    pub fps: f64,
    /// How long a command takes, in milliseconds (?command_ms=)
    #[arg(long, default_value_t = 100)]
    pub command_ms: u64,
    /// Read the next command only when the last one is executed (?pull=1); pings wait as well
    #[arg(long)]
    pub pull: bool,
    /// Append each executed command to this file, before it counts as executed
    #[arg(long, value_name = "FILE")]
    pub journal: Option<PathBuf>,
    /// How long an orderly stop may take, in milliseconds
    #[arg(long, default_value_t = 30_000)]
    pub drain_ms: u64,
    /// Exit at once when stdin ends: a parent that dies takes its workers along
    #[arg(long)]
    pub until_stdin_closes: bool,
}

impl Default for Options {
    fn default() -> Self {
        #[derive(Parser)]
        struct Alone {
            #[command(flatten)]
            options: Options,
        }
        Alone::parse_from(["worker"]).options
    }
}

impl Options {
    /// Whether this worker owns `session`; without `serves` it owns them all.
    pub(super) fn owns(&self, session: &str) -> bool {
        self.serves.is_empty() || self.serves.iter().any(|served| served.session == session)
    }

    /// The proxy's keys and what they are called here.
    pub(super) fn aliases(&self) -> HashMap<&str, &str> {
        let pairs = self.serves.iter();
        pairs.map(|served| (served.key.as_str(), served.session.as_str())).collect()
    }
}

/// A session that the worker owns, and the key by which the proxy asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// The proxy's key.
    pub key: String,
    /// The worker's own session id.
    pub session: String,
}

impl FromStr for Served {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, session) = text.split_once('=').unwrap_or((text, text));
        if key.is_empty() || session.is_empty() {
            return Err("expected SESSION or KEY=SESSION".into());
        }
        Ok(Self { key: key.into(), session: session.into() })
    }
}

/// The picture's size in pixels; both are multiples of 16 between 160 and 4096.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Pixels across.
    pub width: u16,
    /// Pixels down.
    pub height: u16,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let side = |text: &str| text.parse::<u16>().ok().filter(|side| (160..=4096).contains(side));
        let sides = text.split_once('x').and_then(|(width, height)| Some((side(width)?, side(height)?)));
        let (width, height) = sides.ok_or("expected WIDTHxHEIGHT, each from 160 to 4096")?;
        Ok(Self { width: width / 16 * 16, height: height / 16 * 16 })
    }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("expected NAME=VALUE")?;
    Ok((name.into(), value.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serves_knows_plain_sessions_and_aliases() {
        let mut options = Options::default();
        assert!(options.owns("anything"));
        options.serves = ["s1", "udid-7=s2"].map(|text| text.parse().unwrap()).to_vec();
        assert!(options.owns("s1") && options.owns("s2"));
        assert!(!options.owns("udid-7"), "the key is the proxy's word, not ours");
        assert_eq!(options.aliases()["udid-7"], "s2");
        assert!("=s".parse::<Served>().is_err());
    }

    #[test]
    fn a_size_is_rounded_to_whole_blocks_and_bounded() {
        assert_eq!("390x844".parse(), Ok(Size { width: 384, height: 832 }));
        for wrong in ["", "390", "390x", "159x844", "390x4097", "x"] {
            assert!(wrong.parse::<Size>().is_err(), "{wrong}");
        }
    }
}
