//! Logs: `tracing` to stdout, for people or as JSON, with a filter that a reload can change.
//!
//! Owns: the form of a line, the one global subscriber, the count of lines that nobody took.
//! May depend on: `tracing-subscriber`, `config::Logging`.
//! Invariants: a JSON line is `{"timestamp","level","fields":{"message",...},"target"}`, with
//! `filename` and `line_number` in debug mode only. A line that cannot be written, on a full disk or
//! into a closed pipe, is lost and counted: no log ends the server.

use std::io::{self, IsTerminal as _, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use tracing::Subscriber;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::config::Logging;
use crate::config::sections::LogFormat;

#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    #[error("logging.level = {filter:?}: {source}")]
    Filter {
        filter: String,
        source: tracing_subscriber::filter::ParseError,
    },
    #[error("logs were set up before: {0}")]
    AlreadySet(#[from] tracing_subscriber::util::TryInitError),
    #[error("the subscriber is gone: {0}")]
    Gone(#[from] reload::Error),
}

/// Changes the filter of the running subscriber.
#[derive(Clone, Debug)]
pub struct ReloadHandle(reload::Handle<EnvFilter, Registry>);

impl ReloadHandle {
    /// Lets through what `level`, a filter as `RUST_LOG` has it, says from now on.
    pub fn set_level(&self, level: &str) -> Result<(), LoggingError> {
        Ok(self.0.reload(filter(level)?)?)
    }
}

/// Sets up the logs of this process. `debug` adds file and line.
pub fn init(logging: &Logging, debug: bool) -> Result<ReloadHandle, LoggingError> {
    let (subscriber, handle) = subscriber(logging, debug, || Lossy(io::stdout()))?;
    subscriber.try_init()?;
    Ok(handle)
}

/// Lines of the log that could not be written since the start.
pub fn lines_lost() -> u64 {
    LINES_LOST.load(Ordering::Relaxed)
}

static LINES_LOST: AtomicU64 = AtomicU64::new(0);

/// Takes every line, and counts those that the writer below does not. Otherwise the subscriber tells
/// of each failure on stderr, which most likely is on the same full disk, and panics if that fails, too.
struct Lossy<W>(W);

impl<W: Write> Write for Lossy<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.0.write_all(line).is_err() {
            LINES_LOST.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // What could not be written was counted.
        let _ = self.0.flush();
        Ok(())
    }
}

fn subscriber<W>(
    logging: &Logging,
    debug: bool,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync, ReloadHandle), LoggingError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(&logging.level)?);
    let lines = fmt::layer()
        .with_writer(writer)
        .with_target(logging.include_target)
        .with_file(debug)
        .with_line_number(debug);
    let lines = match logging.format {
        LogFormat::Json => lines
            .json()
            .with_current_span(false)
            .with_span_list(false)
            .boxed(),
        LogFormat::Human => {
            let by_terminal = || io::stdout().is_terminal();
            lines
                .with_ansi(logging.colors_enabled.unwrap_or_else(by_terminal))
                .boxed()
        }
    };
    Ok((
        Registry::default().with(filter).with(lines),
        ReloadHandle(handle),
    ))
}

fn filter(level: &str) -> Result<EnvFilter, LoggingError> {
    // That crate tells of each connection for itself; the bus says what of it concerns an operator.
    let parsed = match level.is_empty() || level.contains("async_nats") {
        true => EnvFilter::builder().parse(level),
        false => EnvFilter::builder().parse(format!("{level},async_nats=off")),
    };
    parsed.map_err(|source| LoggingError::Filter {
        filter: level.to_owned(),
        source,
    })
}

#[cfg(test)]
#[expect(
    clippy::disallowed_types,
    reason = "a writer of log lines must be shareable"
)]
mod tests {
    use std::sync::{Arc, Mutex, PoisonError};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn taken(&self) -> String {
            let mut bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            String::from_utf8(std::mem::take(&mut bytes)).expect("logs are UTF-8")
        }
    }

    fn logging(format: LogFormat) -> Logging {
        Logging {
            format,
            level: "info".to_owned(),
            colors_enabled: Some(false),
            include_target: true,
        }
    }

    fn logged(logging: &Logging, debug: bool, what: impl FnOnce(&ReloadHandle)) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let (subscriber, handle) =
            subscriber(logging, debug, move || writer.clone()).expect("the filter holds");
        tracing::subscriber::with_default(subscriber, || what(&handle));
        lines.taken()
    }

    #[test]
    fn a_line_on_a_full_disk_is_lost_and_counted() {
        let full = || std::fs::OpenOptions::new().write(true).open("/dev/full");
        let writer = move || Lossy(full().expect("the device is there"));
        let before = lines_lost();
        let (subscriber, _) =
            subscriber(&logging(LogFormat::Human), false, writer).expect("the filter holds");
        tracing::subscriber::with_default(subscriber, || {
            tracing::info!("one");
            tracing::info!("two");
        });
        assert_eq!(lines_lost() - before, 2);
    }

    #[test]
    fn a_json_line_has_exactly_the_envelope() {
        let line = logged(&logging(LogFormat::Json), false, |_| {
            tracing::info!(shard = 2, "listening");
        });
        let (timestamp, rest) =
            line.split_at("{\"timestamp\":\"2026-01-17T10:00:00.123456Z\"".len());
        assert!(timestamp.ends_with("Z\""), "{line}");
        assert_eq!(
            rest,
            ",\"level\":\"INFO\",\"fields\":{\"message\":\"listening\",\"shard\":2},\
             \"target\":\"sockudo::logging::tests\"}\n"
        );
    }

    #[test]
    fn file_and_line_are_for_debug_only_and_the_target_can_be_left_out() {
        for format in [LogFormat::Json, LogFormat::Human] {
            let logging = Logging {
                include_target: false,
                ..logging(format)
            };
            for debug in [false, true] {
                let line = logged(&logging, debug, |_| tracing::info!("x"));
                assert_eq!(line.contains("logging.rs"), debug, "{line}");
                assert!(!line.contains("logging::tests"), "{line}");
                assert!(!line.contains('\u{1b}'), "{line}");
            }
        }
    }

    #[test]
    fn a_reload_changes_what_is_logged() {
        let lines = logged(&logging(LogFormat::Human), false, |handle| {
            tracing::debug!("one");
            handle.set_level("debug").expect("a filter");
            tracing::debug!("two");
            assert!(handle.set_level("x=y=z").is_err());
        });
        assert!(!lines.contains("one") && lines.contains("two"), "{lines}");
    }
}
