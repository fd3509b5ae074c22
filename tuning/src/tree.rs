//! A tree of files that describe a host: the live one below `/`, or a copy of it.
//!
//! Owns: reading small files, and what became of each read.
//! May depend on: std.
//! Invariants: no read takes more than `FILE_BYTES_MAX`, no list more than `NAMES_MAX` names; nothing that
//! stands in a file makes a read panic.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

/// What became of reading a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading<T> {
    /// It is this.
    Is(T),
    /// There is no such file: the kernel is older, or the feature is not there.
    Absent,
    /// This user may not read it.
    Denied,
    /// It is there, and not what the kernel's documentation says; the first part of it, or the error.
    Strange(String),
}

impl<T> Reading<T> {
    /// The value, if there is one.
    pub fn value(&self) -> Option<&T> {
        match self {
            Self::Is(value) => Some(value),
            Self::Absent | Self::Denied | Self::Strange(_) => None,
        }
    }

    /// Understands a value further; `None` from `parse` makes it strange.
    pub fn and_then<U>(
        self,
        shown: impl Fn(&T) -> String,
        parse: impl Fn(&T) -> Option<U>,
    ) -> Reading<U> {
        match self {
            Self::Is(value) => match parse(&value) {
                Some(parsed) => Reading::Is(parsed),
                None => Reading::Strange(shown(&value)),
            },
            Self::Absent => Reading::Absent,
            Self::Denied => Reading::Denied,
            Self::Strange(text) => Reading::Strange(text),
        }
    }
}

impl Reading<String> {
    /// Understands a text; `None` from `parse` makes it strange.
    pub fn parsed<U>(self, parse: impl Fn(&str) -> Option<U>) -> Reading<U> {
        self.and_then(|text| excerpt(text), |text| parse(text))
    }
}

/// A root below which files are read.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// The tree below this folder.
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
        }
    }

    /// A file's text without white space around it.
    pub fn text(&self, path: &str) -> Reading<String> {
        let file = match File::open(self.place(path)) {
            Ok(file) => file,
            Err(error) => return refused(&error),
        };
        let mut bytes = Vec::new();
        match file.take(FILE_BYTES_MAX).read_to_end(&mut bytes) {
            Ok(_) => Reading::Is(String::from_utf8_lossy(&bytes).trim().to_owned()),
            Err(error) => refused(&error),
        }
    }

    /// A file that holds one whole number.
    pub fn number(&self, path: &str) -> Reading<u64> {
        self.text(path).parsed(|text| text.parse().ok())
    }

    /// A file that holds whole numbers with white space between them.
    pub fn numbers(&self, path: &str) -> Reading<Vec<u64>> {
        let numbers = |text: &str| text.split_whitespace().map(|it| it.parse().ok()).collect();
        self.text(path).parsed(numbers)
    }

    /// The names in a folder, sorted, those of numbers by their value. Empty if it cannot be read.
    pub fn names(&self, path: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.place(path)) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .take(NAMES_MAX)
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort_by_key(|name| (trailing_number(name), name.clone()));
        names
    }

    /// Whether there is a file or folder of this name, as far as this user can see.
    pub fn has(&self, path: &str) -> bool {
        self.place(path).exists()
    }

    fn place(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

fn refused<T>(error: &io::Error) -> Reading<T> {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Reading::Absent,
        io::ErrorKind::PermissionDenied => Reading::Denied,
        _ => Reading::Strange(error.to_string()),
    }
}

/// `rx-10` comes after `rx-9`.
fn trailing_number(name: &str) -> u64 {
    let digits = name.rsplit(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|it| it.parse().ok()).unwrap_or(0)
}

/// What is shown of a text that is not understood.
fn excerpt(text: &str) -> String {
    text.chars().take(EXCERPT_CHARS_MAX).collect()
}

const FILE_BYTES_MAX: u64 = 1 << 20;
const NAMES_MAX: usize = 65_536;
const EXCERPT_CHARS_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_or_understood_is_told_apart() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("number"), "42\n").expect("written");
        fs::write(folder.path().join("junk"), [b'x'; 200]).expect("written");
        fs::write(folder.path().join("bytes"), [0xff, 0xfe]).expect("written");
        let tree = Tree::new(folder.path());
        assert_eq!(tree.number("/number"), Reading::Is(42));
        assert_eq!(tree.number("/none"), Reading::Absent);
        assert_eq!(tree.number("/number/below"), Reading::Absent);
        assert_eq!(tree.number("/junk"), Reading::Strange("x".repeat(60)));
        assert!(matches!(tree.number("/bytes"), Reading::Strange(_)));
        // A folder can be opened and not read.
        assert!(matches!(tree.number("/"), Reading::Strange(_)));
    }

    #[test]
    fn names_of_numbers_come_in_their_order() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["rx-10", "rx-9", "tx-0"] {
            fs::write(folder.path().join(name), "").expect("written");
        }
        let names = Tree::new(folder.path()).names("/");
        assert_eq!(names, ["tx-0", "rx-9", "rx-10"]);
    }
}
