//! Data path. Apps' counters on their way to the bridge, and there until the next report: most of the numbers are small,
//! and many are 0, so that a row takes some twenty bytes.
//!
//! Owns: `PackedApps`, its form.
//! May depend on: std, `protocol::app`, `metrics::counters`.
//! Invariants: what is unpacked is what was packed, bit by bit; a form is never older than the process.

use super::counters::{AppCounters, AppFaults, Latency, TypeCounters};
use crate::protocol::app::{AppIndex, AppRows, PAGE};

/// Rows of apps, as far as they were packed.
#[derive(Clone, Debug, Default)]
pub struct PackedApps {
    /// By page of the rows; of each row its place in the page, then its numbers.
    pages: Vec<Box<[u8]>>,
}

impl PackedApps {
    /// Packs the rows of some more apps; returns how many there were, and whether there are more.
    pub(super) fn pack_more(&mut self, apps: &AppRows<Box<AppCounters>>) -> (usize, bool) {
        let Some(rows) = apps.page(self.pages.len()) else {
            return (0, false);
        };
        let (mut bytes, mut count) = (Vec::new(), 0);
        for (app, counters) in rows {
            bytes.push(u8::try_from(app.0 % PAGE).expect("a page has 64 rows"));
            pack(counters, &mut bytes);
            count += 1;
        }
        self.pages.push(bytes.into());
        (count, apps.page(self.pages.len()).is_some())
    }

    /// All of them, by number.
    pub(super) fn iter(&self) -> impl Iterator<Item = (AppIndex, AppCounters)> {
        let pages = self.pages.iter().zip(0_u32..);
        pages.flat_map(|(page, number)| {
            let mut packed = Packed(page);
            std::iter::from_fn(move || {
                let row = packed.byte()?;
                let app = AppIndex(number * PAGE + u32::from(row));
                Some((app, packed.counters()))
            })
        })
    }
}

/// Bits of what a row has beside its numbers; below them one for each type of channels.
const FAULTS: u8 = 1 << 5;
const LATENCY: u8 = 1 << 6;

fn pack(counters: &AppCounters, out: &mut Vec<u8>) {
    let AppCounters {
        connected,
        new_connections,
        new_disconnections,
        received_bytes,
        transmitted_bytes,
        messages_received,
        messages_sent,
        http_received_bytes,
        http_transmitted_bytes,
        http_calls,
        client_event_checks,
        client_event_limited,
        by_type,
        faults,
        broadcast_latency,
    } = counters;
    let has = |there: bool, bit: u8| if there { bit } else { 0 };
    let types = by_type
        .iter()
        .zip(0..)
        .map(|(it, n)| has(it.is_some(), 1 << n));
    out.push(
        types.sum::<u8>()
            | has(faults.is_some(), FAULTS)
            | has(broadcast_latency.is_some(), LATENCY),
    );
    for number in [
        connected,
        new_connections,
        new_disconnections,
        received_bytes,
        transmitted_bytes,
        messages_received,
        messages_sent,
        http_received_bytes,
        http_transmitted_bytes,
        http_calls,
        client_event_checks,
        client_event_limited,
    ] {
        put(out, *number);
    }
    for counters in by_type.iter().flatten() {
        let TypeCounters {
            subscriptions,
            unsubscriptions,
            active,
        } = &**counters;
        put_all(out, &[*subscriptions, *unsubscriptions, *active]);
    }
    if let Some(faults) = faults {
        pack_faults(faults, out);
    }
    for Latency { buckets, sum_us } in broadcast_latency.iter().flat_map(|it| it.as_flattened()) {
        put_all(out, buckets);
        put(out, *sum_us);
    }
}

fn pack_faults(faults: &AppFaults, out: &mut Vec<u8>) {
    let AppFaults {
        connection_errors,
        slow_consumer_disconnects,
        dropped_frames,
        dropped_bytes,
        webhooks_dropped,
        limit_denied,
        presence_lease_expiries,
        http_errors,
    } = faults;
    put_all(out, connection_errors);
    put(out, *slow_consumer_disconnects);
    put_all(out, dropped_frames);
    put_all(out, dropped_bytes);
    put(out, *webhooks_dropped);
    put_all(out, limit_denied);
    put(out, *presence_lease_expiries);
    put(out, http_errors.iter().len() as u64);
    for (status, count) in http_errors.iter() {
        put(out, u64::from(status));
        put(out, count);
    }
}

/// Seven bits a byte, the least first; the eighth says that more follow.
fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push((number & 0x7F) as u8 | 0x80);
        number >>= 7;
    }
    out.push((number & 0x7F) as u8);
}

fn put_all(out: &mut Vec<u8>, numbers: &[u64]) {
    for number in numbers {
        put(out, *number);
    }
}

/// What is left to unpack. It was packed in this process; where nothing is left all is 0.
struct Packed<'a>(&'a [u8]);

impl Packed<'_> {
    fn byte(&mut self) -> Option<u8> {
        self.0.split_off_first().copied()
    }

    fn number(&mut self) -> u64 {
        let (mut number, mut shift) = (0, 0);
        while let Some(byte) = self.byte() {
            number |= u64::from(byte & 0x7F) << shift;
            shift = (shift + 7).min(63);
            if byte < 0x80 {
                break;
            }
        }
        number
    }

    fn numbers<const N: usize>(&mut self) -> [u64; N] {
        std::array::from_fn(|_| self.number())
    }

    fn counters(&mut self) -> AppCounters {
        let has = self.byte().unwrap_or_default();
        // In the order in which they were packed: a record's parts are read as they stand here.
        AppCounters {
            connected: self.number(),
            new_connections: self.number(),
            new_disconnections: self.number(),
            received_bytes: self.number(),
            transmitted_bytes: self.number(),
            messages_received: self.number(),
            messages_sent: self.number(),
            http_received_bytes: self.number(),
            http_transmitted_bytes: self.number(),
            http_calls: self.number(),
            client_event_checks: self.number(),
            client_event_limited: self.number(),
            by_type: std::array::from_fn(|number| {
                (has & (1 << number) != 0).then(|| {
                    Box::new(TypeCounters {
                        subscriptions: self.number(),
                        unsubscriptions: self.number(),
                        active: self.number(),
                    })
                })
            }),
            faults: (has & FAULTS != 0).then(|| Box::new(self.faults())),
            broadcast_latency: (has & LATENCY != 0).then(|| {
                let mut all: Box<[[Latency; 5]; 5]> = Box::default();
                all.as_flattened_mut().fill_with(|| self.latency());
                all
            }),
        }
    }

    fn faults(&mut self) -> AppFaults {
        AppFaults {
            connection_errors: self.numbers(),
            slow_consumer_disconnects: self.number(),
            dropped_frames: self.numbers(),
            dropped_bytes: self.numbers(),
            webhooks_dropped: self.number(),
            limit_denied: self.numbers(),
            presence_lease_expiries: self.number(),
            http_errors: (0..self.number())
                .map(|_| (self.status(), self.number()))
                .collect(),
        }
    }

    fn status(&mut self) -> u16 {
        u16::try_from(self.number()).expect("packed from as many bits")
    }

    fn latency(&mut self) -> Latency {
        // In the order in which they were packed.
        Latency {
            buckets: self.numbers(),
            sum_us: self.number(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each number another one, some of them as long as can be.
    fn counted(seed: u64) -> AppCounters {
        let mut counters = AppCounters {
            connected: seed,
            new_connections: seed << 7,
            new_disconnections: seed << 14,
            received_bytes: u64::MAX - seed,
            transmitted_bytes: seed << 40,
            messages_received: 127,
            messages_sent: 128,
            http_received_bytes: 16_383,
            http_transmitted_bytes: 16_384,
            http_calls: seed + 1,
            client_event_checks: seed + 2,
            client_event_limited: seed + 3,
            ..AppCounters::default()
        };
        if seed % 2 == 1 {
            counters.of_type_mut((seed % 5) as usize).active = seed + 4;
            counters.of_type_mut(4).subscriptions = seed + 5;
            counters.of_type_mut(4).unsubscriptions = seed + 6;
        }
        if seed % 3 == 1 {
            counters.http_error(404);
            counters.http_error(429);
            let faults = counters.faults_mut();
            faults.connection_errors[18] = seed + 7;
            faults.slow_consumer_disconnects = seed + 8;
            faults.dropped_frames[3] = seed + 9;
            faults.dropped_bytes[0] = seed + 10;
            faults.webhooks_dropped = seed + 11;
            faults.limit_denied[2] = seed + 12;
            faults.presence_lease_expiries = seed + 13;
        }
        if seed % 5 == 1 {
            let latency = counters.broadcast_latency.get_or_insert_default();
            latency[4][0].observe(seed);
            latency[0][4].observe(u64::MAX);
        }
        counters
    }

    #[test]
    fn what_is_unpacked_is_what_was_packed() {
        let mut apps = AppRows::default();
        for app in (0..40).chain(60..70).chain(1_000..1_003) {
            apps.enter(AppIndex(app), || Box::new(counted(app.into())));
        }
        let (mut packed, mut counts) = (PackedApps::default(), Vec::new());
        while {
            let (count, has_more) = packed.pack_more(&apps);
            counts.push(count);
            has_more
        } {}
        assert_eq!((counts.len(), counts.iter().sum::<usize>()), (16, 53));
        assert!(
            packed
                .iter()
                .eq(apps.iter().map(|(app, it)| (app, (**it).clone())))
        );
        let nothing = AppRows::default();
        assert_eq!(PackedApps::default().pack_more(&nothing), (0, false));
    }
}
