//! Lists of CPUs.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The highest number that a CPU of a host can have: more than any kernel counts.
const HIGHEST: u32 = 65_535;

/// CPUs of a host, written as the kernel writes them: `2`, `0-3`, `0-3,8,10-11`. In order, each once, at least
/// one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CpuList(Vec<u32>);

/// A text that is not a list of CPUs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a list of CPUs (expected numbers and ranges, as in `2` or `0-3,8`)")]
pub struct BadCpuList(String);

impl crate::error::Hint for BadCpuList {
    fn exit_code(&self) -> crate::error::ExitCode {
        crate::error::ExitCode::Usage
    }
}

impl CpuList {
    /// The list of these; `None` where there are none.
    pub fn of(cpus: impl IntoIterator<Item = u32>) -> Option<Self> {
        let mut cpus: Vec<u32> = cpus.into_iter().collect();
        cpus.sort_unstable();
        cpus.dedup();
        (!cpus.is_empty()).then_some(Self(cpus))
    }

    /// The numbers, in order.
    pub fn cpus(&self) -> &[u32] {
        &self.0
    }
}

impl FromStr for CpuList {
    type Err = BadCpuList;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadCpuList(text.to_owned());
        let number = |text: &str| {
            let text = text.trim();
            let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
            let number = text.parse().ok().filter(|_| digits);
            number.filter(|number| *number <= HIGHEST).ok_or_else(bad)
        };
        let mut cpus = Vec::new();
        for part in text.split(',') {
            match part.split_once('-') {
                Some((from, to)) => {
                    let (from, to): (u32, u32) = (number(from)?, number(to)?);
                    if to < from {
                        return Err(bad());
                    }
                    cpus.extend(from..=to);
                }
                None => cpus.push(number(part)?),
            }
        }
        Self::of(cpus).ok_or_else(bad)
    }
}

impl fmt::Display for CpuList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_slice();
        while let [first, ..] = rest {
            // As long as each is the one before and one more.
            let run = rest.iter().zip(*first..).take_while(|(cpu, at)| *cpu == at);
            let run = run.count();
            if rest.len() < self.0.len() {
                f.write_str(",")?;
            }
            match rest.get(run - 1) {
                Some(last) if run > 1 => write!(f, "{first}-{last}")?,
                _ => write!(f, "{first}")?,
            }
            rest = &rest[run..];
        }
        Ok(())
    }
}

impl TryFrom<String> for CpuList {
    type Error = BadCpuList;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<CpuList> for String {
    fn from(list: CpuList) -> Self {
        list.to_string()
    }
}

impl schemars::JsonSchema for CpuList {
    fn schema_name() -> Cow<'static, str> {
        "CpuList".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "pattern": "^ *[0-9]+( *- *[0-9]+)? *(, *[0-9]+( *- *[0-9]+)? *)*$",
            "examples": ["2", "0-3,8"]
        })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]
    use super::*;

    #[test]
    fn lists_are_read_and_written() {
        for (text, cpus, told) in [
            ("2", vec![2], "2"),
            ("0-3", vec![0, 1, 2, 3], "0-3"),
            ("8, 0-2 ,1", vec![0, 1, 2, 8], "0-2,8"),
            ("3,7", vec![3, 7], "3,7"),
            ("5-5", vec![5], "5"),
            ("1,2", vec![1, 2], "1-2"),
        ] {
            let list: CpuList = text.parse().unwrap();
            assert_eq!(list.cpus(), cpus, "{text}");
            assert_eq!(list.to_string(), told);
            assert_eq!(told.parse(), Ok(list));
        }
    }

    #[test]
    fn what_is_no_list_is_not_read() {
        for bad in [
            "", " ", ",", "1,", "3-1", "a", "-1", "1-", "+1", "0x1", "0-65536", "^2",
        ] {
            assert!(bad.parse::<CpuList>().is_err(), "{bad}");
        }
        assert_eq!(CpuList::of([]), None);
    }
}
