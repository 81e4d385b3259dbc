//! From a file and the environment to a [`Config`], or to everything that is wrong with them.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::arguments::Arguments;
use super::checks::Finding;
use super::node::{self, Node, Value};
use super::notice::{Invalid, Notice, Place};
use super::read::Reader;
use super::{Config, checks, env};

/// Bytes of a configuration file.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Where the values of a configuration came from.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Sources {
    /// The file that was read, to be read again.
    pub file: Option<PathBuf>,
    /// What was said instead of a file.
    pub arguments: Option<Arguments>,
    /// The place of each key that was written anywhere; the others have their defaults.
    pub places: BTreeMap<String, Place>,
}

/// A configuration, and what its author should know about it.
#[derive(Clone, PartialEq, Debug)]
pub struct Loaded {
    /// Where its values came from.
    pub sources: Sources,
    /// The configuration.
    pub config: Config,
    /// Nothing is wrong, but something may not be as expected.
    pub warnings: Vec<Notice>,
}

impl Config {
    /// The configuration of `path`, or the defaults without one, under the environment of this process.
    ///
    /// # Errors
    /// Everything that is wrong with the file and the environment, in the order of the file.
    pub fn load(path: Option<&Path>) -> Result<Loaded, Invalid> {
        let environment = env::of_this_process();
        let Some(path) = path else {
            return Self::read(None, environment);
        };
        let file = path.display().to_string();
        let text = read_file(path).map_err(|message| single(&file, Place::Nowhere, message))?;
        let mut loaded = Self::read(Some((&file, &text)), environment)?;
        loaded.sources.file = Some(path.to_owned());
        Ok(loaded)
    }

    /// The configuration that `arguments` are, under the environment of this process.
    ///
    /// # Errors
    /// Everything that is wrong with them and the environment.
    pub fn of_arguments(arguments: &Arguments) -> Result<Loaded, Invalid> {
        let mut loaded = Self::of_tree(Reader::new(None), arguments.tree(), env::of_this_process())?;
        loaded.sources.arguments = Some(arguments.clone());
        Ok(loaded)
    }

    /// The configuration of a text, with the name it has in messages, under `environment`.
    ///
    /// Variables whose name does not begin with `HOLDLINE_` are ignored.
    ///
    /// # Errors
    /// Everything that is wrong with the text and the variables, in the order of the text.
    pub fn read(
        source: Option<(&str, &str)>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Loaded, Invalid> {
        let mut reader = Reader::new(source.map(|(file, _)| file.to_owned()));
        let root = match source {
            None => Node { place: Place::Nowhere, value: Value::Table(Vec::new()) },
            Some((_, text)) => match node::parse(text.strip_prefix('\u{feff}').unwrap_or(text)) {
                Ok(root) => root,
                Err(errors) => {
                    for (place, message) in errors {
                        reader.error(place, "", message);
                    }
                    return Err(invalid(reader.errors));
                }
            },
        };
        Self::of_tree(reader, root, environment)
    }

    fn of_tree(
        mut reader: Reader,
        mut root: Node,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Loaded, Invalid> {
        let overlaid = env::overlay(&mut root, environment);
        for (name, key, message) in overlaid.refused {
            reader.error(Place::Env(name), &key, message);
        }
        for (name, message) in overlaid.doubted {
            reader.warning(Place::Env(name), "", message);
        }
        let config = reader.config(&root);
        if !reader.errors.is_empty() {
            return Err(invalid(reader.errors));
        }
        let sources = Sources { file: None, arguments: None, places: reader.written(&config) };
        let mut warnings = reader.warnings;
        warnings.sort_by(|a, b| a.place.cmp(&b.place));
        Ok(Loaded { sources, config, warnings })
    }

    /// Judges once more what holds between keys, for a configuration that was put together from two.
    ///
    /// # Errors
    /// Everything that is wrong; none of it stands anywhere in particular.
    pub fn check_again(&self) -> Result<(), Invalid> {
        let mut found = checks::Findings::default();
        checks::check(self, &mut found);
        let notice = |Finding { key, message, twin: _ }| Notice { file: None, place: Place::Nowhere, key, message };
        let errors: Vec<_> = found.errors.into_iter().map(notice).collect();
        if errors.is_empty() { Ok(()) } else { Err(Invalid { errors }) }
    }
}

impl Sources {
    /// Reads again what was read, from where it was read.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn load_again(&self) -> Result<Loaded, Invalid> {
        match &self.arguments {
            Some(arguments) => Config::of_arguments(arguments),
            None => Config::load(self.file.as_deref()),
        }
    }
}

fn invalid(mut errors: Vec<Notice>) -> Invalid {
    errors.sort_by(|a, b| a.place.cmp(&b.place));
    Invalid { errors }
}

fn single(file: &str, place: Place, message: String) -> Invalid {
    let file = Some(file.to_owned());
    Invalid { errors: vec![Notice { file, place, key: String::new(), message }] }
}

fn read_file(path: &Path) -> Result<String, String> {
    let cannot = |error| format!("cannot read the file: {error}");
    let file = std::fs::File::open(path).map_err(cannot)?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("the file is larger than {FILE_BYTES_MAX} bytes"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        format!("the file is not UTF-8: see the byte at offset {at}")
    })
}
