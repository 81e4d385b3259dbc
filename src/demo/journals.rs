//! Reading the workers' journal files as they grow.
//!
//! A file stays readable after its worker was killed; a line counts once its newline is there.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::board::Board;
use super::clients::client_of;

/// The journal files of all workers that were ever started.
#[derive(Default)]
pub(super) struct Journals {
    files: Vec<Journal>,
}

struct Journal {
    path: PathBuf,
    read: u64,
}

#[derive(Deserialize)]
struct Line<'a> {
    n: Option<u64>,
    session: &'a str,
    attach: Option<u64>,
}

impl Journals {
    /// Reads a worker's journal from now on.
    pub(super) fn follow(&mut self, path: &Path) {
        self.files.push(Journal { path: path.to_owned(), read: 0 });
    }

    /// Books what was executed since the last time.
    ///
    /// # Errors
    /// When a file can't be read, or holds a line that no worker writes.
    pub(super) fn book(&mut self, board: &Board) -> io::Result<()> {
        for journal in &mut self.files {
            let text = journal.news()?;
            let mut books = board.books();
            for line in text.lines() {
                let line: Line<'_> = serde_json::from_str(line)?;
                // taps of the page have no number
                let (Some(number), Some(client)) = (line.n, client_of(line.session)) else { continue };
                if let Some(commands) = books.clients.get_mut(client) {
                    commands.executed(number, line.attach.unwrap_or(0));
                }
            }
        }
        Ok(())
    }
}

impl Journal {
    /// The whole lines that came since the last time; a worker that has not begun has no file yet.
    fn news(&mut self) -> io::Result<String> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(self.read))?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        self.read += text.len() as u64;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_line_counts_when_it_is_whole_and_only_once() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let mut journal = Journal { path: file.path().to_owned(), read: 0 };
        write!(file, "one\ntw").unwrap();
        assert_eq!(journal.news().unwrap(), "one\n");
        assert_eq!(journal.news().unwrap(), "");
        writeln!(file, "o").unwrap();
        assert_eq!(journal.news().unwrap(), "two\n");
    }

    #[test]
    fn a_worker_that_has_not_begun_has_executed_nothing() {
        let mut journal = Journal { path: "/nonexistent/journal".into(), read: 0 };
        assert_eq!(journal.news().unwrap(), "");
    }
}
