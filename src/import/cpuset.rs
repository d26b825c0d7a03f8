//! Sets of numbers as libvirt writes them, of CPUs and of NUMA nodes: `0-3,^2`.

use crate::units::CpuList;

/// The set as a machine file has it. What is right there stays as it was written; a `^`, which takes out of what
/// stands before it, is worked out.
pub(super) fn set(text: &str) -> Option<String> {
    if text.parse::<CpuList>().is_ok() {
        return Some(text.to_owned());
    }
    numbers(text).map(|list| list.to_string())
}

/// The numbers in the set.
pub(super) fn numbers(text: &str) -> Option<CpuList> {
    let mut all: Vec<u32> = Vec::new();
    for part in text.split(',').map(str::trim) {
        match part.strip_prefix('^') {
            Some(out) => {
                let out: CpuList = out.parse().ok()?;
                all.retain(|number| !out.cpus().contains(number));
            }
            None => all.extend(part.parse::<CpuList>().ok()?.cpus()),
        }
    }
    CpuList::of(all)
}

#[cfg(test)]
mod tests {
    use super::set;

    #[test]
    fn what_is_taken_out_of_a_set_is_not_in_it() {
        for (text, is) in [
            ("0-3,8", Some("0-3,8")),
            ("2, 1", Some("2, 1")),
            ("1,^0", Some("1")),
            ("0-7,^2,^6", Some("0-1,3-5,7")),
            ("0-7,^1-6", Some("0,7")),
            // In the order of the text.
            ("^2,0-3", Some("0-3")),
            ("1,^1", None),
            ("^1", None),
            ("1,^", None),
            ("0-3,^x", None),
            ("all", None),
            ("", None),
        ] {
            assert_eq!(set(text).as_deref(), is, "{text}");
        }
    }
}
