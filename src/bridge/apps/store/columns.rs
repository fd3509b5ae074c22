//! The columns of a table of apps that `sockudo apps init` makes, whatever the database.
//!
//! Owns: their names and what each holds; how a database says that is its driver's.
//! May depend on: nothing.
//! Invariants: there is one for every key of an app.

/// A column of the table that is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

/// What a column holds, and whether a row must say it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Id,
    /// Unique.
    Key,
    Text,
    /// Must be said.
    Count,
    CountOrNone,
    /// False, or true, where a row does not say it.
    Flag(bool),
    FlagOrNone,
    /// A list of texts or of objects, or none.
    List,
    CreatedAt,
    UpdatedAt,
}

const fn column(name: &'static str, kind: Kind) -> Column {
    Column { name, kind }
}

/// As Sockudo 2.9 makes it, so that it can use the table too; below what it knows not.
pub(super) const COLUMNS: [Column; 26] = [
    column("id", Kind::Id),
    column("key", Kind::Key),
    column("secret", Kind::Text),
    column("enabled", Kind::Flag(true)),
    column("max_connections", Kind::Count),
    column("enable_client_messages", Kind::Flag(false)),
    column("max_client_events_per_second", Kind::Count),
    column("max_backend_events_per_second", Kind::CountOrNone),
    column("max_read_requests_per_second", Kind::CountOrNone),
    column("max_presence_members_per_channel", Kind::CountOrNone),
    column("max_presence_member_size_in_kb", Kind::CountOrNone),
    column("max_channel_name_length", Kind::CountOrNone),
    column("max_event_channels_at_once", Kind::CountOrNone),
    column("max_event_name_length", Kind::CountOrNone),
    column("max_event_payload_in_kb", Kind::CountOrNone),
    column("max_event_batch_size", Kind::CountOrNone),
    column("enable_user_authentication", Kind::FlagOrNone),
    column("enable_watchlist_events", Kind::FlagOrNone),
    column("webhooks", Kind::List),
    column("allowed_origins", Kind::List),
    column("created_at", Kind::CreatedAt),
    column("updated_at", Kind::UpdatedAt),
    column("secrets", Kind::List),
    column("max_subscriptions_per_connection", Kind::CountOrNone),
    column("enable_subscription_count", Kind::FlagOrNone),
    column("require_tls", Kind::FlagOrNone),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{app_key, keys::APP};

    #[test]
    fn the_table_that_is_made_has_a_column_for_every_key_of_an_app() {
        let mut kept: Vec<&str> = COLUMNS
            .iter()
            .filter_map(|column| app_key(column.name))
            .collect();
        let mut keys: Vec<&str> = APP.iter().map(|key| key.path).collect();
        kept.sort_unstable();
        keys.sort_unstable();
        assert_eq!(kept, keys);
    }
}
