//! What a start would refuse of a configuration that holds, told before anything is opened or asked.
//!
//! Owns: `refusals`, `Reader`: URLs that are none, files that cannot be read, places where no socket can be, users that are not there, a core that
//! is not there.
//! May depend on: `config`, the setups of `bridge`'s drivers, `shards` for the cores.
//! Invariants: each driver's own start reads what it reads here, so that the two cannot differ; nothing is written, and
//! no server is asked; no text holds a secret.

use std::{io, path::Path};

use super::{
    accounts::Account, adapter::BusError, admin::socket::AdminSocket, apps::store::Store,
    kept_store, nodes::bus_setup, port_tls::PortTls, queue_setup, rate_store, tickets::TicketKeys,
};
use crate::config::{
    ConfigError, Loaded, Origin, error::Fault, keys::SERVER, sections::UnixSocket,
    settings::Settings,
};

/// Who looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The process that would use it all.
    Server,
    /// Another one, perhaps of another user, before a service manager has made the folders of the server: what it may not
    /// see is the server's to judge.
    Other,
}

/// All that is wrong, each once.
pub fn refusals(loaded: &Loaded, reader: Reader) -> Vec<ConfigError> {
    let (config, settings) = (&loaded.config, &loaded.settings);
    let mut found = Found {
        settings,
        reader,
        errors: Vec::new(),
    };
    let bus = bus_setup(config, "check");
    found.of_bus(bus.map_or(Ok(()), |setup| setup.check()));
    found.of_bus(kept_store::asked(config).check());
    found.of_bus(rate_store::asked(config).check());
    found.of_bus(queue_setup::check(config));
    if let Err(error) = Store::check(config) {
        found.refuse(error.key, &error.fault, error.is_forbidden);
    }
    if let Err(error) = PortTls::read(&config.ssl, &TicketKeys::default(), 0) {
        found.refuse("ssl.enabled", &error.to_string(), error.is_forbidden());
    }
    admin_socket(config.admin.socket.as_deref(), config.demo, &mut found);
    if config.unix_socket.enabled {
        unix_socket(&config.unix_socket, &mut found);
    }
    bridge_core(config.bridge_core, &mut found);
    found.errors
}

struct Found<'a> {
    settings: &'a Settings,
    reader: Reader,
    errors: Vec<ConfigError>,
}

impl Found<'_> {
    fn of_bus(&mut self, checked: Result<(), BusError>) {
        if let Err(error) = checked {
            self.refuse(error.key(), &error.to_string(), error.is_forbidden());
        }
    }

    /// `text` may begin with the key. A variable of several keys is told of once, and so is a file of several users.
    fn refuse(&mut self, key: &'static str, text: &str, is_forbidden: bool) {
        if is_forbidden && self.reader == Reader::Other {
            return;
        }
        // Some name two keys, where one of them must change.
        let is_one = SERVER.find(key).is_some();
        let origin = match is_one {
            true => self.settings.origin(key).clone(),
            false => Origin::Default,
        };
        let rest = text.strip_prefix(key).filter(|_| is_one);
        let rest =
            rest.and_then(|rest| rest.strip_prefix(": ").or_else(|| rest.strip_prefix(" = ")));
        let names_itself = rest.is_none() && text.starts_with(|c: char| c.is_ascii_lowercase());
        let error = ConfigError {
            origin,
            key: if names_itself { "" } else { key }.to_owned(),
            fault: Fault::Conflict(rest.unwrap_or(text).to_owned()),
        };
        let is_told = self.errors.iter().any(|other| {
            let is_of_file = matches!(error.origin, Origin::File { .. } | Origin::Default);
            other.origin == error.origin
                && other.fault == error.fault
                && (!is_of_file || other.key == error.key)
        });
        if !is_told {
            self.errors.push(error);
        }
    }
}

/// Nobody makes its folder but the service manager, which does so with the start.
fn admin_socket(configured: Option<&str>, is_demo: bool, found: &mut Found<'_>) {
    let Some(path) = AdminSocket::place(configured, is_demo).filter(|_| configured.is_some())
    else {
        return;
    };
    let folder = path.parent().unwrap_or(&path);
    let is_made_later = found.reader == Reader::Other
        && ["/run", "/var/run"].iter().any(|it| folder.starts_with(it));
    let reason = match std::fs::metadata(folder) {
        Ok(folder) if folder.is_dir() => return,
        Ok(_) => "is no folder",
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_made_later => "is not there",
        Err(_) => return, // What it is can be known when it is bound.
    };
    let text = format!(
        "{path:?}: {folder:?} {reason}: make that folder, or set admin.socket = \"none\" to go without"
    );
    found.refuse("admin.socket", &text, false);
}

/// Its folders are made, which cannot be below a file.
fn unix_socket(socket: &UnixSocket, found: &mut Found<'_>) {
    let path = &socket.path;
    let mut above = Path::new(path).ancestors().skip(1);
    let there = above.find_map(|it| Some((it, std::fs::metadata(it).ok()?)));
    if let Some((place, _)) = there.filter(|(_, it)| !it.is_dir()) {
        let text = format!("{path:?}: {place:?} is no folder");
        found.refuse("unix_socket.path", &text, false);
    }
    for (key, account, name) in [
        ("unix_socket.owner", Account::User, &socket.owner),
        ("unix_socket.group", Account::Group, &socket.group),
    ] {
        let unknown = name.as_ref().filter(|it| account.number(it).is_none());
        if let Some(name) = unknown {
            let (word, table) = (account.word(), account.table());
            let text = format!("{name:?} is no {word} of {table}, and no number of one");
            found.refuse(key, &text, false);
        }
    }
}

fn bridge_core(core: Option<u16>, found: &mut Found<'_>) {
    let (Some(core), Ok(allowed)) = (core, shards::allowed_cores()) else {
        return;
    };
    if !allowed.contains(&usize::from(core)) {
        let allowed: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        let allowed = allowed.join(", ");
        let text = format!("{core} is no core that this process may use, which are {allowed}");
        found.refuse("bridge_core", &text, false);
    }
}
