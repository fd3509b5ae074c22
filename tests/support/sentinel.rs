//! Redis with Sentinels of the tests' own: a master, its replica, and who watches over them.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::redis::{Redis, next_address};

/// Running servers. Dropping them kills the processes.
pub(crate) struct Watched {
    pub(crate) master: Redis,
    pub(crate) replica: Redis,
    pub(crate) sentinels: Vec<Sentinel>,
}

/// One that watches.
pub(crate) struct Sentinel {
    child: Child,
    pub(crate) address: SocketAddr,
    _folder: tempfile::TempDir,
}

/// What they call the master.
pub(crate) const NAME: &str = "shop";

impl Watched {
    /// Two servers and three Sentinels. `None` where the machine has no Redis.
    pub(crate) fn start() -> Option<Self> {
        let mut master = Redis::start_replicated(None)?;
        let mut replica = Redis::start_replicated(Some(master.address))?;
        let sentinels = (0..3).map(|_| Sentinel::start(master.address, 2, ""));
        let sentinels: Option<Vec<Sentinel>> = sentinels.collect();
        let sentinels = sentinels?;
        is_replica(&mut replica);
        master.command(&["PING"]);
        let port = replica.address.port().to_string();
        for sentinel in &sentinels {
            until("Sentinels that know each other", || {
                sentinel.says(&["SENTINEL", "CKQUORUM", NAME], "OK 3 usable")
            });
            until("Sentinels that know the replica", || {
                sentinel.says(&["SENTINEL", "REPLICAS", NAME], &port)
            });
        }
        Some(Self {
            master,
            replica,
            sentinels,
        })
    }
}

/// Waits until it follows a master.
pub(crate) fn is_replica(server: &mut Redis) {
    until("a replica", || {
        server
            .command(&["INFO", "replication"])
            .contains("master_link_status:up")
    });
}

impl Sentinel {
    /// With more lines in its configuration.
    pub(crate) fn start(master: SocketAddr, quorum: usize, lines: &str) -> Option<Self> {
        let address = next_address();
        let (host, port) = (address.ip(), address.port());
        let folder = tempfile::tempdir().expect("a temporary folder");
        let settings = format!(
            "bind {host}\nport {port}\nprotected-mode no\ndir {}\nsentinel announce-ip {host}\n\
             sentinel monitor {NAME} {} {} {quorum}\n\
             sentinel down-after-milliseconds {NAME} 500\n\
             sentinel failover-timeout {NAME} 5000\n{lines}\n",
            folder.path().display(),
            master.ip(),
            master.port(),
        );
        // It writes there what it learns.
        let file = folder.path().join("sentinel.conf");
        std::fs::write(&file, settings).expect("it can be written");
        let log = std::fs::File::create(folder.path().join("log")).expect("a log");
        let mut command = Command::new("redis-server");
        command.arg(&file).arg("--sentinel").stdin(Stdio::null());
        let child = command.stdout(log).stderr(Stdio::null()).spawn().ok()?;
        let sentinel = Self {
            child,
            address,
            _folder: folder,
        };
        until("a Sentinel", || TcpStream::connect(address).is_ok());
        Some(sentinel)
    }

    /// Whether it answers so. It ends no connection when asked to.
    fn says(&self, words: &[&str], part: &str) -> bool {
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        let mut stream = TcpStream::connect(self.address).expect("it listens");
        let within = Some(Duration::from_millis(500));
        stream.set_read_timeout(within).expect("a time-out");
        stream.write_all(request.as_bytes()).expect("it reads");
        let (mut answer, mut bytes) = (Vec::new(), [0; 4_096]);
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            answer.extend_from_slice(&bytes[..count]);
            if String::from_utf8_lossy(&answer).contains(part) {
                return true;
            }
        }
        false
    }
}

#[track_caller]
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition() {
        assert!(Instant::now() < deadline, "waited for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Drop for Sentinel {
    fn drop(&mut self) {
        // Both fail only for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
