//! A Unix socket's place in the file system.
//!
//! Owns: `Access`; how a listening socket is put in place, and when its file goes.
//! May depend on: std, rustix.
//! Invariants: a socket that another live process has open is never taken away, nor a file that is no
//! socket; that process is not waited for; whoever finds the file finds its mode and its owner with it; the file goes
//! with who made it, unless a successor has put its own there, or has taken this one over with the socket.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, lchown},
        net::UnixListener,
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with},
};

/// Whether the files of sockets are this process'. One that is about to take them over owns none yet; one that has given
/// them away does no more.
#[derive(Clone, Debug)]
pub struct Ownership(Arc<AtomicBool>);

impl Default for Ownership {
    fn default() -> Self {
        Self::new(true)
    }
}

impl Ownership {
    pub fn new(is_ours: bool) -> Self {
        Self(Arc::new(AtomicBool::new(is_ours)))
    }

    pub fn set(&self, is_ours: bool) {
        self.0.store(is_ours, Ordering::SeqCst);
    }

    fn is_ours(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Who may open a socket's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    pub mode: u32,
    /// Numbers; `None` = those of this process.
    pub owner: Option<u32>,
    pub group: Option<u32>,
}

impl Access {
    pub const fn of_mode(mode: u32) -> Self {
        Self {
            mode,
            owner: None,
            group: None,
        }
    }

    /// Gives the file to them.
    ///
    /// # Errors
    /// When it is not there, or this process may not.
    pub fn set(self, path: &Path) -> io::Result<()> {
        if self.owner.is_some() || self.group.is_some() {
            lchown(path, self.owner, self.group).map_err(|error| self.not_given(&error))?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(self.mode))
    }

    fn not_given(self, error: &io::Error) -> io::Error {
        let part = |key, number: Option<u32>| number.map(|number| format!("{key} = {number}"));
        let parts = [
            part("unix_socket.owner", self.owner),
            part("unix_socket.group", self.group),
        ];
        let parts = Vec::from_iter(parts.into_iter().flatten()).join(", ");
        let text = format!(
            "its file cannot be given away ({parts}): {error}; without the capability CAP_CHOWN a process may give it to \
             a group that it is in, and to no other user"
        );
        io::Error::new(error.kind(), text)
    }
}

/// The file of a socket that is ours. Dropping it takes the file away.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    device: u64,
    inode: u64,
    /// The user who made it, for whom this process runs.
    owner: u32,
    ownership: Ownership,
}

impl SocketFile {
    /// Puts a new socket in place, whole and with who may open it; `None` where another process answers.
    ///
    /// # Errors
    /// When the path's folder cannot be written to, or something else than a socket is there.
    pub fn bind(path: &Path, access: Access) -> io::Result<Option<(UnixListener, Self)>> {
        if let Ok(there) = fs::symlink_metadata(path) {
            if !there.file_type().is_socket() {
                let what = "there is something else than a socket";
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
            }
            if is_listened_to(path)? {
                return Ok(None);
            }
        }
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!(".{}", std::process::id()));
        let made = path.with_file_name(name);
        _ = fs::remove_file(&made); // Of an earlier process with this number.
        let listener = UnixListener::bind(&made)?;
        let placed = access
            .set(&made)
            .and_then(|()| fs::symlink_metadata(&made))
            .and_then(|file| fs::rename(&made, path).map(|()| file));
        if placed.is_err() {
            _ = fs::remove_file(&made);
        }
        let placed = placed?;
        let file = Self {
            path: path.to_owned(),
            device: placed.dev(),
            inode: placed.ino(),
            owner: placed.uid(),
            ownership: Ownership::default(),
        };
        Ok(Some((listener, file)))
    }

    /// The file of a socket that another process hands over.
    ///
    /// # Errors
    /// When it is not there.
    pub fn adopt(path: &Path, ownership: Ownership) -> io::Result<Self> {
        let placed = fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            device: placed.dev(),
            inode: placed.ino(),
            owner: placed.uid(),
            ownership,
        })
    }

    /// Whether the file is taken away depends on it.
    pub fn owned_by(mut self, ownership: Ownership) -> Self {
        self.ownership = ownership;
        self
    }

    pub fn owner(&self) -> u32 {
        self.owner
    }

    fn is_in_place(&self) -> bool {
        let there = fs::symlink_metadata(&self.path);
        there.is_ok_and(|it| (it.dev(), it.ino()) == (self.device, self.inode))
    }
}

/// A process has it open. One that accepts nobody any more lets its queue fill up, and a connect that waits would wait
/// for it for ever.
fn is_listened_to(path: &Path) -> io::Result<bool> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let connected = connect(&socket, &SocketAddrUnix::new(path)?);
    Ok(matches!(connected, Ok(()) | Err(Errno::AGAIN)))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.ownership.is_ours() && self.is_in_place() {
            _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{os::unix::net::UnixStream, sync::mpsc, thread, time::Duration};

    use rustix::net::{bind, listen, socket};

    use super::*;

    #[test]
    fn a_process_that_accepts_nobody_is_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let listener = socket(AddressFamily::UNIX, SocketType::STREAM, None).expect("room");
        let address = SocketAddrUnix::new(&path).expect("short");
        bind(&listener, &address).expect("free");
        listen(&listener, 0).expect("bound");
        // The queue takes this one, and no other.
        let _first = UnixStream::connect(&path).expect("it listens");
        let (tell, told) = mpsc::channel();
        thread::spawn(move || tell.send(SocketFile::bind(&path, Access::of_mode(0o600))));
        let bound = told.recv_timeout(Duration::from_secs(20));
        let bound = bound.expect("it does not wait").expect("it was asked");
        assert!(bound.is_none(), "that process lives");
    }

    #[test]
    fn a_dead_socket_is_replaced_a_live_one_and_a_file_stay() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let (first, file) = SocketFile::bind(&path, Access::of_mode(0o640))
            .expect("bound")
            .expect("free");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert!(
            SocketFile::bind(&path, Access::of_mode(0o600))
                .expect("asked")
                .is_none()
        );
        drop(first);
        let (second, successor) = SocketFile::bind(&path, Access::of_mode(0o600))
            .expect("bound")
            .expect("dead");
        drop(file);
        assert!(UnixStream::connect(&path).is_ok(), "the successor's stays");
        drop((second, successor));
        assert!(!path.exists());
        let (third, file) = SocketFile::bind(&path, Access::of_mode(0o600))
            .expect("bound")
            .expect("free");
        let [mine, yours] = [Ownership::new(true), Ownership::new(false)];
        let file = file.owned_by(mine.clone());
        let adopted = SocketFile::adopt(&path, yours.clone()).expect("it is there");
        let again = SocketFile::adopt(&path, yours.clone()).expect("it is there");
        drop(again);
        assert!(UnixStream::connect(&path).is_ok(), "not its own yet");
        mine.set(false);
        drop(file);
        assert!(UnixStream::connect(&path).is_ok(), "given away");
        yours.set(true);
        drop((third, adopted));
        assert!(!path.exists());
        fs::write(&path, "text").expect("written");
        let refused = SocketFile::bind(&path, Access::of_mode(0o600)).expect_err("a file");
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).expect("untouched"), b"text");
    }
}
