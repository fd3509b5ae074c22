//! The successor as a process: how it is started, seen to end, killed, and how it finds its link.
//!
//! Owns: `Program` (what is started again), `Successor`, its keeper, the variable `SOCKUDO_HANDOVER_FD`.
//! May depend on: std's processes, rustix, `link`.
//! Invariants: a successor that has said its number and is dropped before it was let go is killed and has ended; one
//! that has not has been given nothing, and ends at its first word; the link is its standard input and nothing that
//! it starts inherits it; one that was let go is a child of who adopts orphans, so of the service manager.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::File,
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{
            fs::PermissionsExt as _,
            process::{CommandExt as _, ExitStatusExt as _},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, ExitStatus},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, getpid, kill_process, pidfd_open, pidfd_send_signal},
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

use super::link::Link;

/// Names the descriptor of the link to a process that is started to take over.
pub const VARIABLE: &str = "SOCKUDO_HANDOVER_FD";

/// The standard input: the one descriptor that every program is given in the same place.
const DESCRIPTOR: &str = "0";

/// Makes a keeper of the process that finds it. No `SOCKUDO_`: an older binary, which knows no keepers, would warn of it.
const KEEPER: &str = "HANDOVER_KEEPER";

/// A process that is killed is gone by then, unless the kernel holds it; the bridge stands still meanwhile.
const ENDS_WITHIN: Timespec = Timespec {
    tv_sec: 3,
    tv_nsec: 0,
};

/// Of systemd: whom the watchdog is meant for. Inherited it would name the process before.
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// How this process was started.
#[derive(Clone, Debug)]
pub struct Program {
    binary: PathBuf,
    name: OsString,
    arguments: Vec<OsString>,
    /// The cores that this process was given.
    cores: CpuSet,
}

impl Program {
    /// To be asked when the process starts, before any thread is bound to a core: later the file may be another one,
    /// or gone.
    ///
    /// # Errors
    /// When `/proc` does not say what runs.
    pub fn current() -> io::Result<Self> {
        let running = std::env::current_exe()?;
        let mut arguments = std::env::args_os();
        let name = arguments.next().unwrap_or_else(|| running.clone().into());
        // A link to the current version leads to the next one when it is moved; what it leads to now does not.
        let typed = Path::new(&name);
        let is_same =
            typed.is_absolute() && typed.canonicalize().is_ok_and(|typed| typed == running);
        Ok(Self {
            binary: if is_same { typed.to_owned() } else { running },
            arguments: arguments.collect(),
            name,
            cores: sched_getaffinity(None)?,
        })
    }

    /// The program that would be started.
    pub fn binary<'a>(&'a self, asked: Option<&'a Path>) -> &'a Path {
        asked.unwrap_or(&self.binary)
    }

    /// Whether a file can be started, as far as its mode says.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn check(binary: &Path) -> Result<(), String> {
        let shown = binary.display();
        let found = std::fs::metadata(binary).map_err(|error| format!("{shown}: {error}"))?;
        if !found.is_file() {
            return Err(format!("{shown}: is not a file"));
        }
        match found.permissions().mode() & 0o111 {
            0 => Err(format!("{shown}: may not be executed (its mode)")),
            _ => Ok(()),
        }
    }

    /// Starts it again, or another binary in the same way: arguments, environment and folder are this process'.
    ///
    /// # Errors
    /// When there is no such program, or no room for files or processes.
    pub fn start(&self, asked: Option<&Path>) -> io::Result<(Successor, Link)> {
        let (ours, theirs) = Link::pair()?;
        let mut command = Command::new(self.binary(asked));
        command
            .arg0(&self.name)
            .args(&self.arguments)
            .env(VARIABLE, DESCRIPTOR)
            .env(KEEPER, "1")
            .env_remove(WATCHDOG_PID)
            .stdin(theirs);
        let child = spawn(command, self.cores)?;
        let successor = Successor {
            pid: child.id(),
            child: Some(child),
            kept: None,
        };
        Ok((successor, ours))
    }
}

/// A process may run where the thread may that started it, and ours is bound to a core: so another thread does it.
fn spawn(mut command: Command, cores: CpuSet) -> io::Result<Child> {
    let work = move || {
        // Where a sandbox refuses it the child has one core, which is a slow start and no wrong one.
        _ = sched_setaffinity(None, &cores);
        command.spawn()
    };
    let thread = std::thread::Builder::new().name("spawn".to_owned());
    let child = thread.spawn(work)?.join();
    child.unwrap_or_else(|_| Err(io::Error::other("the thread that started it panicked")))
}

/// A process that was started to take over.
///
/// systemd ends a service at once, without a drain, when its main process is another process' child: it waits for
/// its own children alone. So the process that is started does not take over itself. It starts itself once more and
/// keeps that one, as its parent, until it is let go: then the keeper is ended, and whom it kept is adopted.
#[derive(Debug)]
pub struct Successor {
    /// The process that takes over, or its keeper.
    child: Option<Child>,
    /// Who takes over. The child until it says that it is another one.
    pid: u32,
    /// Of that other one, whose number may be somebody else's later.
    kept: Option<OwnedFd>,
}

impl Successor {
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// It says its number; 0: it does not know it.
    pub fn is_named(&mut self, pid: u32) {
        if pid == 0 || pid == self.pid {
            return;
        }
        self.pid = pid;
        let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
        // Without one it ends all the same when it finds that the link has ended.
        self.kept = raw.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
    }

    /// Kills it, if it has not ended by itself, and says how it ended. Its copies of our sockets are gone then, or go
    /// with it where the kernel holds it (`None`).
    pub fn end(&mut self) -> Option<ExitStatus> {
        let mut child = self.child.take()?;
        if let Some(kept) = &self.kept {
            _ = pidfd_send_signal(kept, Signal::KILL); // Fails for one that has ended.
            has_ended_within(kept, &ENDS_WITHIN);
            // Its keeper ends right behind it, and as it did.
            if let Ok(keeper) = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
                has_ended_within(&keeper, &ENDS_WITHIN);
            }
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Some(status);
        }
        _ = child.kill(); // Fails for one that has ended just now.
        if let Ok(killed) = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
            has_ended_within(&killed, &ENDS_WITHIN);
        }
        child.try_wait().ok().flatten()
    }

    /// By `end`.
    pub fn has_been_ended(&self) -> bool {
        self.child.is_none()
    }

    /// It lives on when this process ends, and has no keeper any more.
    pub fn let_go(&mut self) {
        let keeper = self.child.take().filter(|child| child.id() != self.pid);
        if let Some(mut keeper) = keeper {
            _ = keeper.kill(); // Fails for one that has ended.
            _ = keeper.wait();
        }
    }
}

impl Drop for Successor {
    fn drop(&mut self) {
        self.end();
    }
}

fn has_ended_within(process: &OwnedFd, time: &Timespec) {
    let mut ends = [PollFd::new(process, PollFlags::IN)];
    _ = poll(&mut ends, Some(time)); // Interrupted, it is seen to live and is killed.
}

/// Asks a process that was let go to read its configuration again.
pub fn reload(pid: u32) {
    if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        _ = kill_process(pid, Signal::HUP); // Fails for one that has ended.
    }
}

/// Starts this program once more if it was started to keep the next process, waits for that one and ends as it did.
/// `None`: this is the process that serves, or it must be, since no other one could be started.
///
/// Call it before anything else.
pub fn keep() -> Option<ExitCode> {
    std::env::var_os(KEEPER)?;
    let mut arguments = std::env::args_os();
    let mut command = Command::new("/proc/self/exe");
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    let mut child = command.args(arguments).env_remove(KEEPER).spawn().ok()?;
    // Whoever waits for the end of the link waits for the other one's.
    if let Ok(nothing) = File::open("/dev/null") {
        _ = rustix::stdio::dup2_stdin(nothing);
    }
    let status = child.wait().ok()?;
    if let Some(signal) = status.signal().and_then(Signal::from_named_raw) {
        _ = kill_process(getpid(), signal);
    }
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Some(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Gives a process that was started by way of `/proc/self/exe`, which Linux then calls `exe`, the name of its program: tools
/// that look for it by name find it. Call it on the first thread.
pub fn take_name() {
    const NAME: &str = "/proc/self/comm";
    if std::fs::read_to_string(NAME).is_ok_and(|name| name.trim_end() == "exe")
        && let Some(program) = std::env::args_os().next()
        && let Some(name) = Path::new(&program).file_name()
    {
        _ = std::fs::write(NAME, name.as_encoded_bytes()); // It is called "exe" then.
    }
}

/// The link to the process before this one, if it was started to take over. Takes the variable out of the
/// environment, and the link off the standard input.
///
/// # Errors
/// When the variable names something else than such a link.
pub fn link_of(environment: &mut BTreeMap<String, String>) -> io::Result<Option<Link>> {
    let Some(value) = environment.remove(VARIABLE) else {
        return Ok(None);
    };
    environment.remove(KEEPER);
    if value != DESCRIPTOR {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let stdin = io::stdin();
    let socket: OwnedFd = stdin.as_fd().try_clone_to_owned()?;
    let link = Link::of(socket)?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(Some(link))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn program(binary: &str, arguments: &[&str]) -> Program {
        Program {
            binary: binary.into(),
            name: binary.into(),
            arguments: arguments.iter().map(OsString::from).collect(),
            cores: sched_getaffinity(None).expect("this thread runs somewhere"),
        }
    }

    #[test]
    fn a_file_that_cannot_be_started_is_said_with_its_reason() {
        let folder = tempfile::tempdir().expect("a folder");
        let plain = folder.path().join("plain");
        std::fs::write(&plain, "text").expect("written");
        for (binary, reason) in [
            (folder.path().join("none"), "No such file"),
            (folder.path().to_owned(), "is not a file"),
            (plain, "may not be executed"),
        ] {
            let refused = Program::check(&binary).expect_err("it cannot be");
            assert!(refused.contains(reason), "{refused}");
        }
        assert_eq!(Program::check(Path::new("/bin/true")), Ok(()));
    }

    #[test]
    fn a_successor_finds_the_link_as_its_input_and_its_end_is_seen() {
        let script = "test \"$SOCKUDO_HANDOVER_FD\" = 0 && test -S /dev/stdin && exit 7";
        let started = program("/bin/sh", &["-c", script]).start(None);
        let (mut successor, link) = started.expect("a shell");
        let ended = link.receive_within(Duration::from_secs(30));
        assert!(ended.is_err(), "it said something");
        // It ended by itself, and is not killed.
        let child = successor.child.as_mut().expect("not let go");
        let status = child.wait().expect("ours");
        assert_eq!(status.code(), Some(7));
        assert_eq!(successor.end().and_then(|status| status.code()), Some(7));
    }

    #[test]
    fn a_successor_may_run_wherever_this_process_could_at_its_start() {
        let folder = tempfile::tempdir().expect("a folder");
        let found = folder.path().join("found");
        let script = format!("grep Cpus_allowed: /proc/self/status >{}", found.display());
        let program = program("/bin/sh", &["-c", &script]);
        let allowed = || {
            let status = std::fs::read_to_string("/proc/thread-self/status").expect("it is there");
            let line = status.lines().find(|it| it.starts_with("Cpus_allowed:"));
            line.expect("Linux says it").to_owned()
        };
        let before = allowed();
        let mut one = CpuSet::new();
        let mut cores = 0..CpuSet::MAX_CPU;
        one.set(cores.find(|it| program.cores.is_set(*it)).expect("a core"));
        sched_setaffinity(None, &one).expect("one of ours");
        let (mut successor, _link) = program.start(None).expect("a shell");
        let child = successor.child.as_mut().expect("not let go");
        assert!(child.wait().expect("ours").success());
        let found = std::fs::read_to_string(found).expect("it was written");
        assert_eq!(found.trim_end(), before);
    }

    #[test]
    fn a_successor_that_is_dropped_has_ended() {
        let started = program("/bin/sleep", &["1000"]).start(None);
        let (successor, link) = started.expect("it is there");
        assert!(successor.pid() > 0);
        drop(successor);
        let ended = link.receive_within(Duration::from_secs(30));
        assert!(ended.is_err(), "nobody holds the other end");
    }

    /// A shell that keeps a sleeper, and the sleeper's number.
    fn kept(folder: &Path) -> (Successor, Link, Pid) {
        let pipe = folder.join("pid");
        let made = Command::new("mkfifo").arg(&pipe).status();
        assert!(made.expect("of coreutils").success());
        let script = format!(
            "exec 3<&0; sleep 1000 <&3 & exec </dev/null 3<&-; echo $! >{}; wait $!; exit 9",
            pipe.display()
        );
        let started = program("/bin/sh", &["-c", &script]).start(None);
        let (mut successor, link) = started.expect("a shell");
        let written = std::fs::read_to_string(pipe).expect("the shell writes it");
        let pid = written.trim().parse::<u32>().expect("a number");
        successor.is_named(pid);
        let raw = i32::try_from(pid).expect("a number of a process");
        (successor, link, Pid::from_raw(raw).expect("not 0"))
    }

    /// The fourth field: who waits for its end.
    fn parent(pid: Pid) -> u32 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
        let stat = stat.expect("it lives");
        let fields = stat.rsplit(") ").next().expect("a name is in parentheses");
        let parent = fields.split(' ').nth(1).expect("its parent");
        parent.parse().expect("a number")
    }

    #[test]
    fn a_successor_that_was_let_go_lives_on_as_nobodys_child() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut successor, _link, pid) = kept(folder.path());
        let keeper = successor.child.as_ref().expect("not let go").id();
        assert_eq!(parent(pid), keeper);
        successor.let_go();
        assert_ne!(parent(pid), keeper);
        assert_ne!(parent(pid), std::process::id());
        assert!(!Path::new(&format!("/proc/{keeper}")).exists());
        drop(successor);
        kill_process(pid, Signal::KILL).expect("it lives on");
    }

    #[test]
    fn a_kept_successor_is_killed_and_its_keeper_says_how_it_ended() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut successor, link, _pid) = kept(folder.path());
        let status = successor.end().expect("it ran");
        assert_eq!(status.code(), Some(9));
        let ended = link.receive_within(Duration::from_secs(30));
        assert!(ended.is_err(), "nobody holds the other end");
    }

    #[test]
    fn a_kept_successor_is_killed_though_its_keeper_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        let (mut successor, link, _pid) = kept(folder.path());
        let keeper = successor.child.as_mut().expect("not let go");
        keeper.kill().expect("it waits");
        keeper.wait().expect("ours");
        successor.end();
        let ended = link.receive_within(Duration::from_secs(30));
        assert!(ended.is_err(), "nobody holds the other end");
    }
}
