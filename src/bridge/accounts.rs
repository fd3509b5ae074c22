//! Users and groups of this host, as a configuration names them.
//!
//! Owns: `Account`: which table a name stands in, and its number there.
//! May depend on: std.
//! Invariants: a number is taken as it is, whether anybody has it or not.

use std::fs;

/// Whose name it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    User,
    Group,
}

impl Account {
    /// The number of a name, or of digits; `None` where there is nobody of that name.
    pub fn number(self, name: &str) -> Option<u32> {
        let number = name.parse().ok().filter(|number| *number != NOBODY_AT_ALL);
        number.or_else(|| find(&fs::read_to_string(self.table()).ok()?, name))
    }

    /// Where names stand. Accounts that another service knows have a number here.
    pub const fn table(self) -> &'static str {
        match self {
            Self::User => "/etc/passwd",
            Self::Group => "/etc/group",
        }
    }

    pub const fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Group => "group",
        }
    }
}

/// To the kernel: leave it as it is.
const NOBODY_AT_ALL: u32 = u32::MAX;

/// Each row: name, password, number, and more.
fn find(table: &str, name: &str) -> Option<u32> {
    let number = |row: &str| {
        let mut parts = row.split(':');
        let is_it = parts.next() == Some(name);
        is_it.then(|| parts.nth(1)?.parse().ok()).flatten()
    };
    table.lines().find_map(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_the_number_of_its_row_and_digits_are_a_number() {
        let table = "root:x:0:0:root:/root:/bin/sh\n# none:x:7:\nwww-data:x:33:33::/:\nhalf:x\n";
        for (name, number) in [
            ("root", Some(0)),
            ("www-data", Some(33)),
            ("www", None),
            ("half", None),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(find(table, name), number, "{name:?}");
        }
        for account in [Account::User, Account::Group] {
            assert_eq!(account.number("root"), Some(0));
            assert_eq!(account.number("4000000"), Some(4_000_000));
            assert_eq!(account.number("4294967295"), None, "leaves it as it is");
            assert_eq!(account.number("nobody of this name"), None);
        }
    }
}
