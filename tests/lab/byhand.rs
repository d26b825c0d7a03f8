//! Any script in a host, for people: `LAB_SCRIPT='lspci -nn' cargo test --test lab by_hand -- --ignored --nocapture`.
//! `LAB_HOST` says what the host has beside the usual: words among `iommufd`, `igb`, `gpu`, `xhci`, `mdev`.

use std::time::Duration;

use crate::host::Host;

#[test]
#[ignore = "for people: runs the script in LAB_SCRIPT"]
fn by_hand() {
    let script = std::env::var("LAB_SCRIPT").expect("LAB_SCRIPT holds a script");
    let mut builder = Host::x86();
    for word in std::env::var("LAB_HOST").unwrap_or_default().split(' ') {
        builder = match word {
            "igb" => builder.igb(),
            "iommufd" => builder.iommufd(),
            "gpu" => builder.gpu(),
            "xhci" => builder.second_xhci(),
            "mdev" => builder.modules("mtty mdpy"),
            _ => builder,
        };
    }
    let host = builder.boot();
    // Prints what it says.
    host.sh(&script, Duration::from_secs(1800));
}
