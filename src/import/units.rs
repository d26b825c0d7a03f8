//! Amounts of memory as libvirt writes them.

use super::reader::El;
use crate::units::Size;

/// The amount in an element: its text in the unit that its attribute names, KiB where there is none.
pub(super) fn amount(element: El<'_>) -> Option<Size> {
    let factor = match element.peek("unit") {
        None => 1024,
        Some(_) => element.read("unit", factor)?,
    };
    element.value(|text| whole(text.parse().ok()?, factor))
}

/// The amount in an attribute, in a unit of its own or in KiB.
pub(super) fn attribute(element: El<'_>, name: &str) -> Option<Size> {
    let factor = match element.peek("unit") {
        None => 1024,
        Some(unit) => factor(unit)?,
    };
    element.read(name, |text| whole(text.parse().ok()?, factor))
}

/// libvirt rounds up to KiB; so many bytes are never asked for that their number does not fit.
fn whole(number: u64, factor: u64) -> Option<Size> {
    let bytes = number.checked_mul(factor)?.checked_next_multiple_of(1024)?;
    (bytes > 0 && i64::try_from(bytes).is_ok()).then(|| Size::bytes(bytes))
}

/// How many bytes a unit has: `KB` are thousands, `KiB` and `K` are 1024.
pub(super) fn factor(unit: &str) -> Option<u64> {
    let lower = unit.to_ascii_lowercase();
    if lower == "b" || lower == "bytes" {
        return Some(1);
    }
    let power = match lower.chars().next()? {
        'k' => 1,
        'm' => 2,
        'g' => 3,
        't' => 4,
        'p' => 5,
        'e' => 6,
        _ => return None,
    };
    match &lower[1..] {
        "" | "ib" => Some(1 << (10 * power)),
        "b" => 1000u64.checked_pow(power),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_not_1024() {
        for (unit, bytes) in [
            ("b", Some(1)),
            ("bytes", Some(1)),
            ("KB", Some(1000)),
            ("k", Some(1024)),
            ("KiB", Some(1024)),
            ("MB", Some(1_000_000)),
            ("M", Some(1 << 20)),
            ("GiB", Some(1 << 30)),
            ("TB", Some(1_000_000_000_000)),
            ("EiB", Some(1 << 60)),
            ("mb", Some(1_000_000)),
            ("lots", None),
            ("", None),
            ("ä", None),
        ] {
            assert_eq!(factor(unit), bytes, "{unit}");
        }
        // 1000 MB are no whole KiB: rounded up, as libvirt does.
        assert_eq!(whole(1001, 1000), Some(Size::bytes(978 * 1024)));
        assert_eq!(whole(u64::MAX, 1024), None);
        assert_eq!(whole(0, 1024), None);
    }
}
