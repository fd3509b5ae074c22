//! What a known app costs: bytes that are asked of the allocator, which are the same each time.
//!
//! What is resident is more, by what an allocator rounds up: docs/performance.md has both.

#![expect(
    clippy::print_stdout,
    reason = "what a test measured is read beside its name"
)]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    collections::BTreeMap,
    hint::black_box,
    sync::Arc,
    time::Duration,
};

use ahash::RandomState;
use serde_json::{Map, Value, json};
use shards::application::ShardId;
use sockudo::{
    bridge::{
        apps::{
            AppName, AppTable,
            finder::{Errand, Finder, FinderSettings},
        },
        message::AppWanted,
    },
    config::{App, Config, Sources, app_of_record, load},
    metrics::{counters::ShardCounters, packed::PackedApps},
    protocol::app::AppIndex,
    server::{NodeSeed, Settings, ShardServer, SocketIdKey},
};

/// So many apps that what is kept once is little beside them.
const APPS: u32 = 10_000;

/// Counts for each thread what it has asked for and not given back.
struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // A thread that ends gives back what it had when nobody counts any more.
    let _ = HELD.try_with(|held| held.set(held.get() + bytes));
}

// SAFETY: every call is handed on as it came; what is counted touches no memory of the callers.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller promises what `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller promises what `System` asks for.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What `make` makes, and the bytes that it holds per app.
fn weighed<T>(what: &str, make: impl FnOnce() -> T) -> (T, isize) {
    let before = HELD.get();
    let made = black_box(make());
    let bytes = (HELD.get() - before) / isize::try_from(APPS).expect("some thousands");
    println!("{what}: {bytes} bytes per app");
    (made, bytes)
}

/// Ids of 8 digits, keys and secrets of 20 characters.
fn record(number: u32, webhooks: usize) -> Map<String, Value> {
    let hook = |at: usize| {
        json!({
            "url": format!("https://customer-{number:05}.example.com/hooks/{at}"),
            "event_types": ["channel_occupied", "channel_vacated"],
        })
    };
    let record = json!({
        "id": format!("{}", 10_000_000 + number),
        "key": format!("key{number:05}abcdefghijkl"),
        "secret": format!("secret{number:05}ABCDEFGHI"),
        "webhooks": (0..webhooks).map(hook).collect::<Vec<_>>(),
    });
    match record {
        Value::Object(record) => record,
        _ => unreachable!("an object stands above"),
    }
}

fn config() -> Config {
    let sources = Sources {
        environment: BTreeMap::new(),
        ..Sources::default()
    };
    load(&sources).expect("the defaults hold").config
}

fn apps(config: &Config, webhooks: usize) -> impl Iterator<Item = App> {
    let made =
        move |number| app_of_record(&config.app_manager.app_defaults, &record(number, webhooks));
    (0..APPS).map(move |number| made(number).expect("an app"))
}

fn table(config: &Config, webhooks: usize) -> AppTable {
    let mut table = AppTable::of_store();
    for app in apps(config, webhooks) {
        table.put(&app).expect("it is new");
    }
    table
}

/// As when a client of each app has come, the shard was told, and what is remembered of questions has faded.
fn finder(table: &AppTable) -> Finder {
    let settings = FinderSettings {
        ttl: Duration::from_secs(270),
        negative_ttl: Duration::from_secs(10),
        unknown_per_s: 200,
        ask_every: Duration::from_secs(5),
        places: 9,
        timeout: Duration::from_secs(2),
    };
    let empty = AppTable::of_store();
    let mut finder = Finder::new(Duration::ZERO, settings);
    finder.looked_at(Duration::ZERO, std::iter::empty());
    for (entry, number) in table.iter().zip(1_u64..) {
        // 150 a second.
        let now = Duration::from_micros(number * 6_667);
        let name = AppName::Key(entry.rules.key.clone());
        let address = None;
        let wanted = AppWanted { name, address };
        finder.ask(now, (&empty, number - 1), ShardId(0), wanted);
        while let Some(errand) = finder.next_errand() {
            if let Errand::Find(name) = errand {
                finder.found(now, &name, &entry.app.id, number);
            }
        }
        finder.opened(number);
        finder.tick(now);
    }
    while finder.next_errand().is_some() {}
    finder
}

fn shard(config: &Config, apps: &Arc<AppTable>) -> ShardServer {
    let settings = Settings::from_config(config, "node".to_owned(), 1_000_000);
    let seed = NodeSeed {
        settings: settings.expect("no CORS is configured"),
        apps: Arc::clone(apps),
        homes: RandomState::with_seeds(1, 2, 3, 4),
        socket_ids: SocketIdKey::from_seed(1),
    };
    ShardServer::new(&seed, ShardId(0))
}

#[test]
fn a_known_app_costs_the_bridge_no_more_than_its_bound() {
    let config = config();
    for (webhooks, bound) in [(0, 560), (1, 780)] {
        let (table, rows) = weighed("the table", || table(&config, webhooks));
        let (_finder, names) = weighed("the finder", || finder(&table));
        assert!(
            rows + names <= bound,
            "{rows} and {names}, {webhooks} webhooks"
        );
    }
}

#[test]
fn an_app_costs_a_shard_that_uses_it_no_more_than_its_bound() {
    let config = config();
    // The rows themselves are the bridge's, and shared by all shards.
    let table = Arc::new(table(&config, 0));
    let (_shard, view) = weighed("a shard's view", || shard(&config, &table));
    let (counters, counted) = weighed("a shard's counters", counters);
    let (_report, reported) = weighed("the bridge's report of them", || report(&counters));
    assert!(view + counted <= 300, "{view} and {counted}");
    assert!(reported <= 40, "{reported}");
}

/// As when a client of each app has come and subscribed to a channel, and its application has asked once.
fn counters() -> ShardCounters {
    let mut counters = ShardCounters::default();
    for app in 0..APPS {
        let app = counters.app(AppIndex(app));
        app.new_connections += 1;
        app.connected += 1;
        app.received_bytes += 100;
        app.transmitted_bytes += 100;
        app.messages_received += 1;
        app.messages_sent += 2;
        app.http_calls += 1;
        app.http_received_bytes += 100;
        app.http_transmitted_bytes += 100;
        app.of_type_mut(1).subscriptions += 1;
        app.of_type_mut(1).active += 1;
    }
    counters
}

fn report(counters: &ShardCounters) -> PackedApps {
    let mut copy = PackedApps::default();
    while counters.pack_apps(&mut copy).1 {}
    copy
}
