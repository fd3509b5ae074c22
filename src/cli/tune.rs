//! What `tune` does: writes a plan's files into a folder, and says how to apply them.
//!
//! Owns: the writing, and the differences to what the host has.
//! May depend on: `tuning`; the arguments in `cli`.
//! Invariants: nothing outside of the folder is written, and the folder is never the root of the host.

use std::{fmt::Write as _, fs, io, os::unix::fs::PermissionsExt as _, path::Path};

use tuning::{
    Host, Ring, Severity, Target,
    plan::{self, Plan, PlannedFile, plan},
    verdict,
};

use super::{Tune, config::Answer};

pub fn run(arguments: &Tune) -> Answer {
    let root = arguments.root.as_deref().unwrap_or_else(|| Path::new("/"));
    if !root.is_dir() {
        let diagnostics = format!("--root {}: no such folder\n", root.display());
        return answer(String::new(), diagnostics, EXIT_WRONG_USAGE);
    }
    let mut host = Host::read(root);
    if arguments.root.is_none() {
        host.ring = Some(Ring::probe());
    }
    let target = Target {
        connections: arguments.connections,
        shards: arguments.shards,
        ..Target::default()
    };
    let plan = plan(&host, &target);
    let mut out = String::new();
    if arguments.diff {
        out.push_str(&differences(&plan, root));
    }
    if let Some(folder) = &arguments.write {
        if is_root(folder) {
            let diagnostics =
                "--write /: nothing is applied unseen; name a folder of its own, look, then copy\n";
            return answer(out, diagnostics.to_owned(), EXIT_WRONG_USAGE);
        }
        for file in &plan.files {
            if let Err(error) = write(folder, file) {
                let diagnostics = format!(
                    "{}/{}: cannot be written: {error}\n",
                    folder.display(),
                    file.path
                );
                return answer(out, diagnostics, EXIT_FAILED);
            }
        }
        out.push_str(&plan::text(
            &plan,
            &target.needs(&host),
            &folder.display().to_string(),
        ));
    }
    let exit = match verdict(&plan.left) {
        Severity::Fine | Severity::Warning => 0,
        Severity::Blocking => EXIT_FAILED,
    };
    answer(out, String::new(), exit)
}

const EXIT_FAILED: u8 = 1;
const EXIT_WRONG_USAGE: u8 = 2;

const fn answer(out: String, diagnostics: String, exit: u8) -> Answer {
    Answer {
        out,
        diagnostics,
        exit,
    }
}

fn is_root(folder: &Path) -> bool {
    folder.canonicalize().is_ok_and(|it| it == Path::new("/"))
}

fn write(folder: &Path, file: &PlannedFile) -> io::Result<()> {
    let path = folder.join(&file.path);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(&path, &file.text)?;
    let mode = if file.is_executable { 0o755 } else { 0o644 };
    fs::set_permissions(&path, fs::Permissions::from_mode(mode))
}

/// Against the files of the host, not of the folder.
fn differences(plan: &Plan, root: &Path) -> String {
    let mut out = String::new();
    for file in &plan.files {
        let there = root.join(&file.path);
        let old = fs::read(&there).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let old = old.unwrap_or_default();
        let changes = plan::diff(&old, &file.text);
        let _ = match changes.is_empty() {
            true => writeln!(out, "/{}: as it is", file.path),
            false => write!(out, "/{}:\n{changes}", file.path),
        };
    }
    out
}
