//! Whether this user may have threads scheduled in real time.

use serde::{Deserialize, Serialize};

use super::facts::Roots;

/// The bit of `CAP_SYS_NICE` (`linux/capability.h`).
const SYS_NICE: u64 = 23;

/// What the kernel lets this process do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RealtimeFacts {
    /// Whether it has `CAP_SYS_NICE`: any priority.
    pub sys_nice: bool,
    /// The highest priority without (`ulimit -r`).
    pub limit: u32,
}

impl RealtimeFacts {
    /// Reads `/proc/self`.
    pub fn read(roots: &Roots) -> Self {
        let text = |name: &str| std::fs::read_to_string(roots.path(name)).unwrap_or_default();
        Self {
            sys_nice: sys_nice(&text("/proc/self/status")),
            limit: limit(&text("/proc/self/limits")),
        }
    }
}

fn sys_nice(status: &str) -> bool {
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    capabilities
        .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
        .is_some_and(|bits| bits >> SYS_NICE & 1 == 1)
}

/// The soft limit.
fn limit(limits: &str) -> u32 {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max realtime priority"));
    match line.and_then(|line| line.split_whitespace().next()) {
        Some("unlimited") => u32::MAX,
        Some(number) => number.parse().unwrap_or(0),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rights_are_read() {
        assert!(sys_nice("Name:\tmvm\nCapEff:\t000001fffeffffff\n"));
        assert!(!sys_nice(
            "CapEff:\t0000000000000000\nCapBnd:\t000001fffeffffff\n"
        ));
        assert!(!sys_nice(""));
        let limits = "Max nice priority         0                    0                    \n\
                      Max realtime priority     95                   99                   \n";
        assert_eq!(limit(limits), 95);
        assert_eq!(
            limit("Max realtime priority     unlimited  unlimited"),
            u32::MAX
        );
        assert_eq!(limit(""), 0);
    }
}
