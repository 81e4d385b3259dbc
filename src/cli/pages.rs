//! What stands behind the options in `--help` and in the manual: examples, files and exit codes.
//!
//! One table for both, so that they cannot differ; each example is parsed by a test.

use std::fmt::Write as _;

use clap::Command;

/// Which commands exit with what, and which files they know of.
const EXIT: &str = "0 fine, 1 failed at run time, 2 bad usage or bad configuration";
const EXIT_CTL: &str = "0 fine, 1 refused, not there or not reached, 2 bad usage, a bad value or a bad configuration";
const CONFIGURATION: (&str, &str) =
    ("/etc/holdline/proxy.toml", "the configuration of the packages' service; HOLDLINE_CONFIG names another one");
const TOKENS: (&str, &str) = ("/etc/holdline/tokens", "admin.tokens_file: role, SHA-256 of the token, name");
const SOCKETS: (&str, &str) = ("/run/holdline", "socket files of workers and of listeners");

/// What is said of one command.
struct Page {
    /// The command as it is typed.
    command: &'static str,
    /// What each does, and how it is typed.
    examples: &'static [(&'static str, &'static str)],
    files: &'static [(&'static str, &'static str)],
    exit: &'static str,
}

const fn page(command: &'static str, examples: &'static [(&'static str, &'static str)], exit: &'static str) -> Page {
    Page { command, examples, files: &[], exit }
}

const PAGES: &[Page] = &[
    Page {
        files: &[CONFIGURATION, TOKENS, SOCKETS],
        ..page(
            "holdline",
            &[
                (
                    "before two workers, without a file",
                    "holdline serve --to ws://127.0.0.1:9001 --to ws://127.0.0.1:9002",
                ),
                ("with a file, after a look at it", "holdline check proxy.toml"),
                ("what goes on", "holdline ctl top"),
            ],
            EXIT,
        )
    },
    Page {
        files: &[CONFIGURATION, TOKENS, SOCKETS],
        ..page(
            "holdline serve",
            &[
                (
                    "before two workers, without a file",
                    "holdline serve --to ws://127.0.0.1:9001 --to ws://127.0.0.1:9002",
                ),
                ("the same for other machines", "holdline serve --to ws://127.0.0.1:9001 --listen 0.0.0.0:8000"),
                ("with a file", "holdline serve -c /etc/holdline/proxy.toml"),
                ("without either: workers register themselves", "holdline serve"),
            ],
            EXIT,
        )
    },
    Page {
        files: &[CONFIGURATION],
        ..page(
            "holdline check",
            &[
                ("before a reload or a restart", "holdline check /etc/holdline/proxy.toml"),
                ("for a program", "holdline check --json proxy.toml"),
                ("what holds, with the environment", "holdline check --print proxy.toml"),
            ],
            "0 good, 2 not good",
        )
    },
    page(
        "holdline config",
        &[
            ("a file to begin with", "holdline config example"),
            ("for editors, beside the file", "holdline config schema"),
            ("the layout, in place", "holdline config fmt proxy.toml"),
            ("in CI", "holdline config fmt --check proxy.toml"),
        ],
        "0 fine, 1 the layout is not in order (--check), 2 not TOML",
    ),
    page("holdline demo", &[("three workers and a page", "holdline demo")], EXIT),
    page(
        "holdline ctl",
        &[
            ("what is", "holdline ctl backends"),
            ("pipes of one route, as JSON", "holdline ctl pipes --route phones --json"),
            ("empty a worker and wait for it", "holdline ctl backends drain w1 --watch"),
            ("another process, with a token in HOLDLINE_TOKEN", "holdline ctl --admin https://10.0.0.7:9000 info"),
        ],
        EXIT_CTL,
    ),
    page(
        "holdline ctl backends",
        &[
            ("those that take no pipes now", "holdline ctl backends --state drain"),
            ("one more", "holdline ctl backends add ws://10.0.0.5:9001 --id w5 --pool phones"),
            ("empty one, and take it back", "holdline ctl backends drain w5 --watch"),
            ("", "holdline ctl backends ready w5"),
        ],
        EXIT_CTL,
    ),
    page(
        "holdline ctl pools",
        &[("how many workers each has", "holdline ctl pools"), ("even out", "holdline ctl pools rebalance phones")],
        EXIT_CTL,
    ),
    page(
        "holdline ctl pipes",
        &[
            ("those of one backend", "holdline ctl pipes --backend w5"),
            ("those of a group", "holdline ctl pipes --label room:a"),
            ("one to another worker", "holdline ctl pipes move VkoC9x8VLvkE42L18FXApQ"),
            ("close one", "holdline ctl pipes close VkoC9x8VLvkE42L18FXApQ --code 4000 --reason bye"),
        ],
        EXIT_CTL,
    ),
    page(
        "holdline ctl workers",
        &[
            ("the processes of a pool", "holdline ctl workers --pool phones"),
            ("those that Holdline runs", "holdline ctl workers list"),
            ("replace all of a group", "holdline ctl workers restart api"),
        ],
        EXIT_CTL,
    ),
    page(
        "holdline ctl broadcast",
        &[
            ("to every client", "holdline ctl broadcast --text 'back in five minutes'"),
            ("to a group", "holdline ctl broadcast --label room:a --text hello"),
        ],
        "0 at least one client has taken it, 1 none has, or it was refused or not reached, 2 bad usage or a bad value",
    ),
    page(
        "holdline ctl events",
        &[
            ("from now on", "holdline ctl events --follow"),
            ("what came after number 120", "holdline ctl events --after 120"),
        ],
        EXIT_CTL,
    ),
    page(
        "holdline ctl config",
        &[
            ("what holds, and where each value was written", "holdline ctl config show"),
            ("what a file would change", "holdline ctl config validate proxy.toml"),
            ("put it in force", "holdline ctl config reload"),
        ],
        EXIT_CTL,
    ),
    page("holdline ctl log", &[("see more for a while", "holdline ctl log debug --for 10m")], EXIT_CTL),
    page(
        "holdline ctl drain",
        &[("until no pipe is left", "holdline ctl drain --watch"), ("take it back", "holdline ctl drain --cancel")],
        EXIT_CTL,
    ),
    page("holdline ctl top", &[("every five seconds", "holdline ctl top --every 5")], EXIT_CTL),
    page(
        "holdline healthcheck",
        &[("ready for clients", "holdline healthcheck"), ("alive, for Docker", "holdline healthcheck --live")],
        "0 ready or alive, 1 not, 2 bad usage or bad configuration",
    ),
    page(
        "holdline upgrade",
        &[
            ("the file that the running process was started from, as it is now", "holdline upgrade"),
            ("another one", "holdline upgrade --binary /usr/local/bin/holdline"),
        ],
        "0 the new process has taken over, 1 the old one serves on, 2 bad usage or bad configuration",
    ),
    page("holdline worker", &[("at a port", "holdline worker --listen 127.0.0.1:9001")], EXIT),
    page(
        "holdline run",
        &[("a worker at a free port", "holdline run --pool phones -- uvicorn app:app --port {port}")],
        "the command's own, or 1 where it cannot be started or registered, 2 bad usage",
    ),
    page(
        "holdline agent",
        &[("a worker behind a NAT", "holdline agent --to https://proxy.example:9443 --forward 127.0.0.1:9001 --id w1")],
        EXIT,
    ),
    page(
        "holdline keys",
        &[
            ("a file for resume.keys_file", "holdline keys new /etc/holdline/keys"),
            ("a new key in front", "holdline keys rotate /etc/holdline/keys"),
        ],
        EXIT,
    ),
    page("holdline completions", &[("for bash", "holdline completions bash")], EXIT),
    page("holdline man", &[("all pages", "holdline man --dir /usr/local/share/man/man1")], EXIT),
];

fn of(command: &str) -> Option<&'static Page> {
    PAGES.iter().find(|page| page.command == command)
}

/// `command` with what stands behind its options in `--help`, and its subcommands with theirs.
pub(super) fn with_help(command: Command) -> Command {
    dressed(command, "")
}

fn dressed(mut command: Command, above: &str) -> Command {
    let typed = format!("{above} {}", command.get_name()).trim_start().to_owned();
    if let Some(page) = of(&typed) {
        command = command.after_long_help(page.help());
    }
    let names: Vec<String> = command.get_subcommands().map(|below| below.get_name().to_owned()).collect();
    names.iter().fold(command, |command, name| command.mut_subcommand(name, |below| dressed(below, &typed)))
}

/// The same in the language of manual pages, for the command as it is typed.
pub(super) fn manual(command: &str) -> String {
    of(command).map_or_else(String::new, Page::manual)
}

impl Page {
    fn help(&self) -> String {
        let mut text = String::from("Examples:\n");
        for (what, typed) in self.examples {
            if !what.is_empty() {
                let _ = writeln!(text, "  # {what}");
            }
            let _ = writeln!(text, "  {typed}");
        }
        if !self.files.is_empty() {
            text.push_str("\nFiles:\n");
            for (file, what) in self.files {
                let _ = writeln!(text, "  {file:<26}  {what}");
            }
        }
        let _ = write!(text, "\nExit status:\n  {}", self.exit);
        text
    }

    fn manual(&self) -> String {
        let mut text = String::from(".SH EXAMPLES\n");
        for (what, typed) in self.examples {
            let _ = write!(text, ".PP\n{}\n.RS 4\n.nf\n{}\n.fi\n.RE\n", escaped(what), escaped(typed));
        }
        if !self.files.is_empty() {
            text.push_str(".SH FILES\n");
            for (file, what) in self.files {
                let _ = write!(text, ".TP\n{}\n{}\n", escaped(file), escaped(what));
            }
        }
        let _ = write!(text, ".SH EXIT STATUS\n{}\n", escaped(self.exit));
        text
    }
}

/// A line that roff prints as it is.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::{CommandFactory, Parser};

    #[test]
    fn every_example_is_a_command_line() {
        for (_, typed) in PAGES.iter().flat_map(|page| page.examples) {
            let words = typed.replace("'back in five minutes'", "soon");
            let parsed = Cli::try_parse_from(words.split_whitespace());
            assert!(parsed.is_ok(), "{typed}: {}", parsed.err().map(|error| error.to_string()).unwrap_or_default());
        }
    }

    #[test]
    fn every_command_has_its_examples_in_its_help_and_no_page_is_of_another() {
        let command = with_help(Cli::command());
        for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
            let help = below.get_after_long_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:\n") && help.contains("\nExit status:\n"), "{}", below.get_name());
        }
        for page in PAGES {
            let mut names = page.command.split(' ').skip(1);
            let found = names.try_fold(&command, |at, name| at.find_subcommand(name));
            assert!(found.is_some(), "{}", page.command);
        }
    }

    #[test]
    fn a_manual_page_has_the_sections_that_readers_look_for() {
        let text = manual("holdline serve");
        for section in
            [".SH EXAMPLES\n", ".SH FILES\n", ".SH EXIT STATUS\n", "holdline serve \\-\\-to ws://127.0.0.1:9001"]
        {
            assert!(text.contains(section), "{section}: {text}");
        }
    }
}
