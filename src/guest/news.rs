//! QEMU's events, as far as they change something.

use std::fs::OpenOptions;
use std::path::Path;

use mvm_qmp::Event;

use super::lifecycle::News;

/// The event log's length beyond which it is trimmed.
const EVENT_LOG: u64 = 1 << 20;

/// What an event means for the guest's life.
pub(crate) fn news(event: &Event) -> Option<News> {
    let text = |key: &str| event.data.get(key).and_then(|value| value.as_str());
    match event.name.as_str() {
        "STOP" => Some(News::Stopped),
        "RESUME" => Some(News::Resumed),
        "SUSPEND" => Some(News::Suspended),
        "SUSPEND_DISK" => Some(News::Hibernated),
        "WAKEUP" => Some(News::WokeUp),
        "SHUTDOWN" => Some(News::Shutdown(
            text("reason").unwrap_or_default().to_owned(),
        )),
        "RESET" => Some(News::Reset),
        "GUEST_PANICKED" => Some(News::Panicked),
        // QEMU exits at once, without a SHUTDOWN event.
        "WATCHDOG" if text("action") == Some("poweroff") => Some(News::WatchdogPoweroff),
        _ => None,
    }
}

/// A disk's failure that stopped the guest, in words.
pub(crate) fn disk_trouble(event: &Event) -> Option<String> {
    let text = |key: &str| event.data.get(key).and_then(|value| value.as_str());
    if text("action") != Some("stop") {
        return None;
    }
    let disk = text("node-name")
        .filter(|name| !name.is_empty())
        .or(text("device"));
    let full = event.data.get("nospace").and_then(|value| value.as_bool());
    let what = if full == Some(true) {
        "the file system of its image is full: make room and `mvm resume` it"
    } else {
        text("reason").unwrap_or("an input or output error")
    };
    Some(format!("disk {}: {what}", disk.unwrap_or("unknown")))
}

/// Shortens the event log. It is for the time when nobody listens: what was heard needs no keeping.
pub(crate) fn trim(log: &Path) {
    let trim = || -> std::io::Result<()> {
        let file = OpenOptions::new().write(true).open(log)?;
        if file.metadata()?.len() > EVENT_LOG {
            file.set_len(0)?;
        }
        Ok(())
    };
    if let Err(error) = trim() {
        tracing::debug!(%error, "cannot trim the event log");
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(name: &str, data: serde_json::Value) -> Event {
        Event {
            name: name.to_owned(),
            data,
            timestamp: mvm_qmp::Timestamp {
                seconds: 1,
                microseconds: 0,
            },
        }
    }

    #[test]
    fn only_a_failure_that_stops_the_guest_is_its_trouble() {
        let failure = |action: &str, nospace: bool| {
            event(
                "BLOCK_IO_ERROR",
                json!({"device": "", "node-name": "disk-system", "operation": "write",
                       "action": action, "nospace": nospace, "reason": "No space left on device"}),
            )
        };
        let text = disk_trouble(&failure("stop", true)).unwrap();
        assert!(
            text.starts_with("disk disk-system: the file system"),
            "{text}"
        );
        assert!(
            disk_trouble(&failure("stop", false))
                .unwrap()
                .ends_with("left on device")
        );
        assert_eq!(disk_trouble(&failure("report", false)), None);
    }

    #[test]
    fn a_watchdog_only_ends_qemu_by_poweroff() {
        let bite = |action: &str| news(&event("WATCHDOG", json!({ "action": action })));
        assert_eq!(bite("poweroff"), Some(News::WatchdogPoweroff));
        assert_eq!(bite("reset"), None);
        assert_eq!(news(&event("X_NEW", json!({}))), None);
    }

    #[test]
    fn a_long_log_is_trimmed() {
        let log = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(log.path(), "short").unwrap();
        trim(log.path());
        assert_eq!(std::fs::metadata(log.path()).unwrap().len(), 5);
        log.as_file().set_len(EVENT_LOG + 1).unwrap();
        trim(log.path());
        assert_eq!(std::fs::metadata(log.path()).unwrap().len(), 0);
    }
}
