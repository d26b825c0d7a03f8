//! Any script in a host, for people: `LAB_SCRIPT='lspci -nn' cargo test --test lab by_hand -- --ignored --nocapture`.

use std::time::Duration;

use crate::host::Host;

#[test]
#[ignore = "for people: runs the script in LAB_SCRIPT"]
fn by_hand() {
    let script = std::env::var("LAB_SCRIPT").expect("LAB_SCRIPT holds a script");
    let host = Host::x86().boot();
    // Prints what it says.
    host.sh(&script, Duration::from_secs(1800));
}
