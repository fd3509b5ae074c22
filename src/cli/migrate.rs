//! What `migrate-from` does: reads another server's texts, writes a file of ours, lists the rest.
//!
//! Owns: the reading and the writing, and the form of the list.
//! May depend on: `config::carry`; the arguments in `cli`.
//! Invariants: no file that exists is written to; the one that is written only its owner may read.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use super::config::{Answer, EXIT_BAD_CONFIG};
use super::{Former, MigrateFrom};
use crate::config::carry::{self, Carried, Given, Text, Why};

pub fn run(arguments: &MigrateFrom) -> Answer {
    let read_one = |path: &Option<_>| path.as_deref().map(read).transpose();
    let file = arguments.file.clone().or_else(|| arguments.config.clone());
    let texts = read_one(&file).and_then(|file| Ok((file, read_one(&arguments.env_file)?)));
    let (file, env) = match texts {
        Ok(texts) => texts,
        Err(text) => return refused(text, EXIT_BAD_CONFIG),
    };
    let given = Given {
        file: file.as_ref().map(|(name, text)| Text { name, text }),
        variables: env.as_ref().map(|(name, text)| Text { name, text }),
    };
    let carried = match carry::carry(former(arguments.former), given) {
        Ok(carried) => carried,
        Err(errors) => return refused(format!("{errors}\n"), EXIT_BAD_CONFIG),
    };
    let mut answer = Answer {
        out: String::new(),
        diagnostics: list(&carried),
        exit: u8::from(arguments.strict && !carried.left.is_empty()),
    };
    match &arguments.output {
        _ if arguments.check => {}
        None => answer.out = carried.file,
        Some(path) => match write(path, &carried.file) {
            Ok(()) => {
                let path = path.display();
                let _ = writeln!(
                    answer.diagnostics,
                    "{path} is written; next: sockudo config check --config {path}"
                );
            }
            Err(error) => {
                let text = format!("{}: cannot be written: {error}\n", path.display());
                return refused(text, EXIT_CANNOT_WRITE);
            }
        },
    }
    answer
}

/// `EX_CANTCREAT` of sysexits.
const EXIT_CANNOT_WRITE: u8 = 73;

const fn refused(diagnostics: String, exit: u8) -> Answer {
    Answer {
        out: String::new(),
        diagnostics,
        exit,
    }
}

const fn former(former: Former) -> carry::Former {
    match former {
        Former::Soketi => carry::Former::Soketi,
        Former::Reverb => carry::Former::Reverb,
        Former::Pusher => carry::Former::Pusher,
        Former::Sockudo => carry::Former::Sockudo,
    }
}

/// A file's name and text; a sentence where it has none.
fn read(path: &Path) -> Result<(String, String), String> {
    let is_stdin = path == Path::new("-");
    let name = if is_stdin {
        "stdin".to_owned()
    } else {
        path.display().to_string()
    };
    let read = || -> io::Result<String> {
        let mut text = String::new();
        let bound = BYTES_MAX + 1;
        let bytes = match is_stdin {
            true => io::stdin().lock().take(bound).read_to_string(&mut text)?,
            false => fs::File::open(path)?
                .take(bound)
                .read_to_string(&mut text)?,
        };
        match u64::try_from(bytes).is_ok_and(|bytes| bytes <= BYTES_MAX) {
            true => Ok(text),
            false => Err(io::Error::other("more than 16 MiB is no configuration")),
        }
    };
    match read() {
        Ok(text) => Ok((name, text)),
        Err(error) => Err(format!("{name}: cannot be read: {error}\n")),
    }
}

const BYTES_MAX: u64 = 16 << 20;

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// So many values can be no one's.
fn wrong(carried: &Carried) -> usize {
    let left = carried.left.iter();
    left.filter(|left| left.why == Why::Wrong).count()
}

fn list(carried: &Carried) -> String {
    let mut out = String::new();
    for left in &carried.left {
        let why = match left.why {
            Why::NoPlace => "",
            Why::Wrong => " (its value is wrong)",
        };
        let _ = writeln!(out, "not carried: {left}{why}");
    }
    for note in &carried.notes {
        let _ = writeln!(out, "note: {note}");
    }
    let plural = if carried.apps == 1 { "" } else { "s" };
    let _ = writeln!(
        out,
        "{} app{plural} carried; {} not carried{}, {} to know",
        carried.apps,
        carried.left.len(),
        match wrong(carried) {
            0 => String::new(),
            wrong => format!(" ({wrong} with a wrong value)"),
        },
        carried.notes.len()
    );
    out
}
