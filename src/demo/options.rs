//! The demo's command line.

use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;

/// `holdline demo`.
#[derive(Args, Debug, Clone)]
pub struct Options {
    /// Worker processes, 1 to 64
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=64))]
    pub workers: u64,
    /// Clients that send commands, 1 to 5000; every fourth watches a screen as well
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=5000))]
    pub clients: u64,
    /// How often a worker is killed or drained (500ms, 3s, 1m); 0 is never
    #[arg(long, default_value = "3s", value_parser = crate::config::parse_duration)]
    pub kill_every: Duration,
    /// How long that goes on, 20 if not given; 0 is until Ctrl-C
    #[arg(long)]
    pub seconds: Option<u64>,
    /// Begin to count the seconds when the page is opened, and keep it after the verdict, until Ctrl-C; so it is on a
    /// terminal where no --seconds are given
    #[arg(long)]
    pub stay: bool,
    /// Print one JSON object on stdout at the end, and nothing else there
    #[arg(long)]
    pub json: bool,
    /// Where the viewer page is served; loopback only, port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0", value_parser = loopback)]
    pub listen: SocketAddr,
    /// Clients and screens come by TLS, with a certificate that is made for it and thrown away
    #[arg(long)]
    pub tls: bool,
    /// Keep nothing for the next worker, to see the verdict turn red
    #[arg(long, hide = true)]
    pub break_replay: bool,
}

/// How long workers fall where nothing else is said.
const SECONDS: u64 = 20;

impl Options {
    /// How long workers fall, in seconds; 0 is until Ctrl-C.
    pub(super) fn seconds(&self) -> u64 {
        self.seconds.unwrap_or(SECONDS)
    }

    /// Whether the page waits for its viewer and outlives the verdict: a person looks, who has not said for how long.
    pub(super) fn stays(&self, is_terminal: bool) -> bool {
        self.stay || (is_terminal && self.seconds.is_none() && !self.json)
    }
}

/// The page has buttons that kill processes, so it is for this machine only.
fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| "expected ADDRESS:PORT".to_owned())?;
    if address.ip().is_loopback() { Ok(address) } else { Err("only a loopback address".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Alone {
        #[command(flatten)]
        options: Options,
    }

    fn parse(line: &str) -> Result<Options, clap::Error> {
        Alone::try_parse_from(std::iter::once("demo").chain(line.split_whitespace())).map(|alone| alone.options)
    }

    #[test]
    fn the_defaults_are_those_of_the_contract() {
        let options = parse("").unwrap();
        assert_eq!((options.workers, options.clients, options.seconds()), (3, 20, 20));
        assert_eq!(options.kill_every, Duration::from_secs(3));
        assert!(!options.json && !options.tls && !options.break_replay);
        assert!(options.listen.ip().is_loopback());
    }

    #[test]
    fn the_page_stays_for_a_person_who_did_not_say_how_long() {
        for (line, is_terminal, stays) in [
            ("", true, true),
            ("", false, false),
            ("--seconds 20", true, false),
            ("--json", true, false),
            ("--json --seconds 5 --stay", false, true),
        ] {
            assert_eq!(parse(line).unwrap().stays(is_terminal), stays, "{line:?}, {is_terminal}");
        }
    }

    #[test]
    fn durations_are_written_as_in_the_configuration() {
        assert_eq!(parse("--kill-every 500ms").unwrap().kill_every, Duration::from_millis(500));
        assert_eq!(parse("--kill-every 0").unwrap().kill_every, Duration::ZERO);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for wrong in [
            "--workers 0",
            "--workers 65",
            "--clients 0",
            "--kill-every soon",
            "--seconds -1",
            "--listen 0.0.0.0:0",
            "x",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
