//! `<clock>` and its timers.

use super::draft::Draft;
use super::reader::El;

pub(super) fn clock(root: El<'_>, out: &mut Draft) {
    let Some(clock) = root.child("clock") else {
        return;
    };
    match clock.attr("offset") {
        None => {}
        Some(base @ ("utc" | "localtime")) => {
            out.put(clock, "clock", "base", base);
            // `reset` is what mvm does: a new start begins at the host's time.
            let _ = clock.is("adjustment", "reset") || clock.is("adjustment", "0");
        }
        Some("variable") => {
            let base = clock.read("basis", |basis| {
                matches!(basis, "utc" | "localtime").then_some(basis)
            });
            out.put(clock, "clock", "base", base.unwrap_or("utc"));
            if !clock.is("adjustment", "0") {
                out.left_attr(
                    clock,
                    "adjustment",
                    "mvm does not remember by how much a guest has set its clock: it begins at the host's time",
                );
            }
        }
        Some("absolute") => {
            if let Some(seconds) = clock.number("start") {
                out.put(clock, "clock", "base", rfc3339(seconds));
            }
        }
        Some("timezone") => {
            out.put(clock, "clock", "base", "localtime");
            out.left_attr(clock, "timezone", "mvm's `localtime` is the host's");
        }
        Some(_) => out.told(clock, "mvm knows no such `offset`"),
    }
    for timer in clock.children("timer") {
        self::timer(timer, out);
    }
}

fn timer(timer: El<'_>, out: &mut Draft) {
    let present = timer.flag("present");
    match timer.attr("name") {
        Some(name @ ("rtc" | "pit")) => {
            let policy = timer.read("tickpolicy", |policy| {
                matches!(
                    (name, policy),
                    ("rtc", "catchup" | "delay") | ("pit", "delay" | "discard")
                )
                .then_some(policy)
            });
            match policy {
                Some(policy) => out.put(timer, "clock", name, policy),
                None if present == Some(false) => out.told(timer, "mvm's boards have it"),
                None => {}
            }
            if timer.is("track", "guest") {
                out.told(timer, "mvm's clock follows the host's");
            } else {
                let _ = timer.is("track", "wall") || timer.is("track", "boot");
            }
        }
        Some("hpet") => out.put(timer, "clock", "hpet", present.unwrap_or(true)),
        Some("kvmclock") => out.put(timer, "clock", "kvmclock", present.unwrap_or(true)),
        Some("hypervclock") => {
            if present.unwrap_or(true) {
                out.put(timer, "hyperv", "time", true);
            } else {
                out.fine(timer, "off, as it is anyhow");
            }
        }
        Some("tsc") => {
            let hertz = timer
                .number("frequency")
                .and_then(|hertz| i64::try_from(hertz).ok());
            if let Some(hertz) = hertz {
                out.put(timer, "clock", "tsc-frequency", hertz);
            }
            let native = timer.is("mode", "native") || timer.is("mode", "auto");
            if native && hertz.is_none() {
                out.fine(timer, "every guest under KVM has the host's");
            }
        }
        _ => out.left(timer, "mvm has no such timer"),
    }
}

/// Seconds since 1970 as profiles write a time.
fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days of the civil calendar, counted from 1 March of the year 0 in spans of 400 years.
    let shifted = days + 719_468;
    let (era, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{of_month:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn seconds_become_a_time() {
        for (seconds, time) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_000_000_000, "2001-09-09T01:46:40Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
        ] {
            assert_eq!(rfc3339(seconds), time);
        }
    }
}
