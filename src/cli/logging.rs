//! What mvm tells about its own doings: to stderr, on a terminal only what is wrong.

use std::fmt;
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt as _;

use super::output;

/// Changes what is logged.
type Change = Box<dyn Fn(LevelFilter) + Send + Sync>;

/// Set once logging has started with nothing asked for.
static QUIET: OnceLock<Change> = OnceLock::new();

/// Takes the colours away.
static PLAIN: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();

/// Whether lines have the time in front: in a log, not on a terminal.
static TIMES: AtomicBool = AtomicBool::new(false);

/// Starts logging to stderr: `MVM_LOG` (`debug`, or `mvm=info,mvm_qmp=trace`), or else as many `-v`.
pub fn start(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::WARN,
        1 => LevelFilter::INFO,
        2 => LevelFilter::DEBUG,
        _ => LevelFilter::TRACE,
    };
    let asked = std::env::var("MVM_LOG")
        .ok()
        .filter(|text| !text.is_empty());
    let read = asked
        .filter(|_| verbose == 0)
        .map(|text| text.parse::<Targets>());
    let (targets, quiet, wrong) = match read {
        Some(Ok(targets)) => (targets, false, None),
        Some(Err(error)) => (Targets::new().with_default(level), true, Some(error)),
        None => (Targets::new().with_default(level), verbose == 0, None),
    };
    let (targets, handle) = reload::Layer::new(targets);
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(output::stderr_colour())
        .with_timer(Times)
        .with_target(verbose > 1);
    let (layer, shape) = reload::Layer::new(layer);
    // Only a second call could fail, and it would find the first one's logging.
    let _ = tracing_subscriber::registry()
        .with(targets)
        .with(layer)
        .try_init();
    // As above.
    let _ = PLAIN.set(Box::new(move || {
        // It fails only when logging has ended.
        let _ = shape.modify(|layer| layer.set_ansi(false));
    }));
    if quiet {
        let change = move |level| {
            // It fails only when logging has ended.
            let _ = handle.modify(|targets| *targets = Targets::new().with_default(level));
        };
        // As above.
        let _ = QUIET.set(Box::new(change));
    }
    if let Some(error) = wrong {
        tracing::warn!("MVM_LOG is not understood and ignored: {error}");
    }
}

/// From here on stderr is a log: lines have times and no colours, whatever stderr was before, and say what goes on unless something else was asked
/// for.
pub(super) fn to_log() {
    TIMES.store(true, Ordering::Relaxed);
    if let Some(plain) = PLAIN.get() {
        plain();
    }
    if let Some(change) = QUIET.get() {
        change(LevelFilter::INFO);
    }
}

/// The time, where it is wanted.
struct Times;

impl FormatTime for Times {
    fn format_time(&self, writer: &mut Writer<'_>) -> fmt::Result {
        if TIMES.load(Ordering::Relaxed) {
            SystemTime.format_time(writer)
        } else {
            Ok(())
        }
    }
}
