//! Times as people write them.

/// Reads a time: `@1700000000.5`, or RFC 3339 as in `2026-11-28T20:15:00Z` or `2026-11-28 20:15:00.25+01:00`.
pub fn read(text: &str) -> Option<i64> {
    if let Some(seconds) = text.strip_prefix('@') {
        let (whole, nanos) = fraction(seconds)?;
        return whole.checked_mul(NANOS)?.checked_add(nanos);
    }
    let date = text.get(..10)?;
    let (year, rest) = (number(date, 0, 4)?, date.get(4..)?);
    let (month, day) = (number(rest, 1, 2)?, number(rest, 4, 2)?);
    let time = text.get(11..)?;
    let (hour, minute) = (number(time, 0, 2)?, number(time, 3, 2)?);
    let marks = [
        (text, 4, "-"),
        (text, 7, "-"),
        (time, 2, ":"),
        (time, 5, ":"),
    ];
    let marked = marks
        .iter()
        .all(|(text, at, mark)| text.get(*at..at + 1) == Some(*mark));
    let joined = matches!(text.get(10..11), Some("T" | "t" | " "));
    let zone_at = time.find(['Z', 'z', '+', '-'])?;
    let (second, nanos) = fraction(time.get(6..zone_at)?)?;
    let east = zone(&time[zone_at..])?;
    let sound = marked
        && joined
        && time.get(6..8)?.bytes().all(|digit| digit.is_ascii_digit())
        && (1..=12).contains(&month)
        && (1..=days_of(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second < 60;
    if !sound {
        return None;
    }
    let minutes = (days(year, month, day) * 24 + hour) * 60 + minute - east;
    (minutes * 60 + second)
        .checked_mul(NANOS)?
        .checked_add(nanos)
}

const NANOS: i64 = 1_000_000_000;

/// The digits at a place, as a number.
fn number(text: &str, at: usize, length: usize) -> Option<i64> {
    let digits = text.get(at..at + length)?;
    digits
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| digits.parse().ok())?
}

/// Seconds with or without a fraction: the whole ones, and nanoseconds.
fn fraction(text: &str) -> Option<(i64, i64)> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    if part.is_empty() || part.len() > 9 {
        return None;
    }
    let nanos = number(&format!("{part:0<9}"), 0, 9)?;
    Some((number(whole, 0, whole.len())?, nanos))
}

/// Minutes east of Greenwich.
fn zone(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "z") {
        return Some(0);
    }
    let (hours, minutes) = (number(text, 1, 2)?, number(text, 4, 2)?);
    let sound = text.len() == 6 && text.get(3..4) == Some(":") && hours < 24 && minutes < 60;
    let east = hours * 60 + minutes;
    sound.then_some(if text.starts_with('-') { -east } else { east })
}

fn is_leap(year: i64) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970 to that day.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March: a leap day is the last of its year.
    let year = if month > 2 { year } else { year - 1 };
    let month = (month + 9) % 12;
    let before = year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    before + (month * 153 + 2) / 5 + day - 1 - 719_468
}

/// A time in UTC, to the second.
pub fn write(nanos: i64) -> String {
    let seconds = nanos.div_euclid(NANOS);
    let (mut day, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Not later than it is: from there on it is counted.
    let mut year = 1970 + day.div_euclid(if day < 0 { 365 } else { 366 });
    while days(year + 1, 1, 1) <= day {
        year += 1;
    }
    // Before 1970 the guess is late.
    while days(year, 1, 1) > day {
        year -= 1;
    }
    day -= days(year, 1, 1);
    let mut month = 1;
    while day >= days_of(year, month) {
        day -= days_of(year, month);
        month += 1;
    }
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!(
        "{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z",
        day + 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", 0),
            ("2000-02-29T23:59:59Z", 951_868_799),
            ("2026-11-28T20:15:00Z", 1_795_896_900),
            ("2100-03-01T00:00:00Z", 4_107_542_400),
            ("1969-12-31T23:59:59Z", -1),
        ] {
            assert_eq!(read(text), Some(seconds * NANOS), "{text}");
            assert_eq!(write(seconds * NANOS), text);
        }
        assert_eq!(read("@1700000000.25"), Some(1_700_000_000_250_000_000));
        assert_eq!(read("1970-01-01 01:30:00.5+01:30"), Some(500_000_000));
        assert_eq!(read("1970-01-01t00:00:00-01:00"), Some(3600 * NANOS));
    }

    #[test]
    fn what_is_no_time_is_not_read() {
        for bad in [
            "",
            "@",
            "@x",
            "@1.",
            "now",
            "2026-11-28",
            "2026-11-28T20:15:00",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-11-28T24:00:00Z",
            "2026-11-28T20:15:60Z",
            "2026-11-28T20:15:0Z",
            "2026-11-28T20:15:00+1:00",
            "2026/11/28T20:15:00Z",
            "2026-11-28T20:15:00Zx",
            "@99999999999999",
            "2026-11-28T20:15:+00:00",
            "ä026-11-28T20:15:00Z",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn every_day_is_its_own() {
        for day in -1000..60_000 {
            let text = write(day * 86_400 * NANOS);
            assert_eq!(read(&text), Some(day * 86_400 * NANOS), "{text}");
        }
    }
}
