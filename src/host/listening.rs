//! TCP ports that somebody listens on.

use std::collections::BTreeSet;
use std::fs;

use super::facts::Roots;

/// The state of a listening socket in the kernel's list.
const LISTEN: &str = "0A";

/// All ports that are taken on any address of this host.
pub(super) fn read(roots: &Roots) -> BTreeSet<u16> {
    ["/proc/net/tcp", "/proc/net/tcp6"]
        .iter()
        .filter_map(|path| fs::read_to_string(roots.path(path)).ok())
        .flat_map(|text| parse(&text))
        .collect()
}

/// Lines such as `0: 0100007F:170C 00000000:0000 0A …`.
fn parse(text: &str) -> Vec<u16> {
    text.lines()
        .skip(1)
        .filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (_, port) = fields.nth(1)?.rsplit_once(':')?;
            (fields.nth(1)? == LISTEN).then(|| u16::from_str_radix(port, 16).ok())?
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listening_sockets_count() {
        let text = "  sl  local_address rem_address   st\n\
                    \x20  0: 0100007F:170C 00000000:0000 0A 00000000:00000000\n\
                    \x20  1: 0100007F:170D 0100007F:C000 01 00000000:00000000\n\
                    \x20  2: 00000000000000000000000001000000:172A 00000000000000000000000000000000:0000 0A 0:0\n";
        assert_eq!(parse(text), [5900, 5930]);
    }
}
