//! One line of `mvm events`.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::super::output;
use crate::guest::Goal;

/// The states that a line can tell: those of a supervisor, and what is seen where there is none.
pub(super) const STATES: &[&str] = &[
    "starting",
    "running",
    "paused",
    "suspended",
    "stopping",
    "restarting",
    "stopped",
    "unsupervised",
    "crashed",
];

/// Something that happened to a guest.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    time: f64,
    guest: String,
    kind: &'static str,
    more: Value,
}

impl Line {
    /// What a supervisor told; nothing where this mvm does not know what it is.
    pub(super) fn told(guest: &str, happened: &Value) -> Option<Self> {
        let (kind, more) = if let Some(state) = happened.get("state").filter(|s| s.is_object()) {
            ("state", state.clone())
        } else if let Some(event) = happened.get("event") {
            ("event", json!({ "event": event, "data": happened["data"] }))
        } else if let Some(ended) = happened.get("ended") {
            let mut more = ended.clone();
            more["state"] = happened["state"].clone();
            ("ended", more)
        } else if let Some(count) = happened.get("lost") {
            ("lost", json!({ "count": count }))
        } else {
            return None;
        };
        Some(Self {
            time: happened["time"].as_f64().unwrap_or_else(now),
            guest: guest.to_owned(),
            kind,
            more,
        })
    }

    /// A state that was seen without being told.
    pub(super) fn seen(guest: &str, state: &str, message: &str) -> Self {
        Self {
            time: now(),
            guest: guest.to_owned(),
            kind: "state",
            more: json!({ "state": state, "agent": false, "message": message }),
        }
    }

    /// The state that the guest is in, where the line tells one.
    pub(super) fn state(&self) -> Option<&str> {
        self.more["state"].as_str()
    }

    /// Whether it is what was waited for.
    pub(super) fn is(&self, word: &str) -> bool {
        let agent = word == Goal::Agent.as_str() && self.more["agent"] == true;
        self.state() == Some(word) || self.more["event"] == word || agent
    }

    /// For programs.
    pub(super) fn json(&self) -> String {
        let mut value = json!({ "time": self.time, "guest": self.guest, "kind": self.kind });
        if let (Some(all), Some(more)) = (value.as_object_mut(), self.more.as_object()) {
            all.extend(more.iter().map(|(key, value)| (key.clone(), value.clone())));
        }
        format!("{value}\n")
    }

    /// For people.
    pub(super) fn text(&self) -> String {
        let text = |key: &str| self.more[key].as_str().unwrap_or_default();
        let mut words = match self.kind {
            "event" => format!("{} {}", text("event"), self.more["data"]),
            "ended" => format!("ended: {}", text("reason")),
            "lost" => format!("{} lines were lost", self.more["count"]),
            _ if self.more["agent"] == true => format!("{}, its agent answers", text("state")),
            _ => text("state").to_owned(),
        };
        if !text("message").is_empty() {
            words.push_str(&format!(" ({})", text("message")));
        }
        let line = format!("{} {} {words}", stamp(self.time), self.guest);
        format!("{}\n", output::clean(&line))
    }
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs_f64()
}

/// Seconds since 1970 as `2026-11-28T19:00:00.123Z`.
fn stamp(time: f64) -> String {
    let millis = (time.max(0.0) * 1000.0).round() as u64;
    let (seconds, millis) = (millis / 1000, millis % 1000);
    let (days, rest) = (seconds / 86400, seconds % 86400);
    // Days since 0000-03-01, in eras of 400 years: the leap day is the last of its year.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(stamp(0.0), "1970-01-01T00:00:00.000Z");
        assert_eq!(stamp(951_782_400.5), "2000-02-29T00:00:00.500Z");
        assert_eq!(stamp(1_735_689_599.999), "2024-12-31T23:59:59.999Z");
        assert_eq!(stamp(4_107_542_400.0), "2100-03-01T00:00:00.000Z");
    }

    fn told(happened: Value) -> Line {
        Line::told("web", &happened).expect("it is known")
    }

    #[test]
    fn lines_are_for_people_and_programs() {
        let event = told(json!({"event": "STOP", "data": {}, "time": 1.5}));
        assert_eq!(event.text(), "1970-01-01T00:00:01.500Z web STOP {}\n");
        assert_eq!(
            event.json(),
            "{\"time\":1.5,\"guest\":\"web\",\"kind\":\"event\",\"event\":\"STOP\",\"data\":{}}\n"
        );
        assert!(event.is("STOP") && !event.is("RESUME"));
        let state =
            told(json!({"time": 0, "state": {"state": "running", "agent": true, "message": null}}));
        assert!(state.text().ends_with("web running, its agent answers\n"));
        assert!(state.is("running") && state.is("agent") && state.state() == Some("running"));
        let ended = told(json!({"time": 0, "state": "restarting",
            "ended": {"at": 1, "reason": "crashed", "message": "by signal 9"}}));
        assert!(ended.text().ends_with("web ended: crashed (by signal 9)\n"));
        assert!(ended.is("restarting") && !ended.is("stopped"));
        let lost = told(json!({"lost": 7}));
        assert!(lost.text().ends_with("web 7 lines were lost\n"));
        assert!(Line::told("web", &json!({"new": 1})).is_none());
    }

    #[test]
    fn what_a_guest_says_stays_on_its_line() {
        let event = told(json!({"event": "X", "data": {}, "time": 0, "more": 1}));
        assert_eq!(event.text().lines().count(), 1);
        let seen = Line::seen("web", "crashed", "a\nb");
        assert_eq!(seen.text().lines().count(), 1);
        assert_eq!(seen.json().lines().count(), 1);
    }
}
