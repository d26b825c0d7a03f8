//! `<interface>`

use toml::{Table, Value};

use super::devices::{Counts, count, name, virtio};
use super::draft::Draft;
use super::hostdev;
use super::reader::{El, short};
use super::{address, boot};

pub(super) fn interface(one: El<'_>, counts: &mut Counts, out: &mut Draft) {
    let kind = one.attr("type").unwrap_or("network");
    if kind == "hostdev" {
        return hostdev::interface(one, counts, out);
    }
    let usual = format!("net{}", counts.net);
    counts.net += 1;
    let name = name(one, usual, out);
    let table = format!("network.{name}");
    out.bootable.push(("network", table.clone()));
    if !other_end(one, kind, &name, &table, out) {
        return;
    }
    let model = one
        .child("model")
        .and_then(|model| model.attr("type"))
        .unwrap_or(if out.arm { "virtio" } else { "rtl8139" });
    out.put(one, &table, "model", self::model(model));
    if let Some(mac) = one.child("mac") {
        if let Some(address) = mac.attr("address") {
            out.put(mac, &table, "mac", address);
        }
        let _ = (mac.attr("type"), mac.attr("check"));
    }
    if let Some(driver) = one.child("driver") {
        self::driver(driver, kind, &table, out);
    }
    if let Some(mtu) = one.child("mtu") {
        if let Some(size) = count(mtu, "size") {
            out.put(mtu, &table, "mtu", size);
        }
    }
    if let Some(rom) = one.child("rom") {
        if let Some(file) = rom.attr("file") {
            out.put(rom, &table, "rom", file);
        }
        if rom.flag("enabled") == Some(false) || rom.flag("bar") == Some(false) {
            out.fine(rom, "a card that the guest does not boot from has none");
        }
    }
    boot::own(one, &table, out);
    address::place(one, Some(&table), out);
    for (part, why) in [
        (
            "filterref",
            "mvm filters no packets: nftables on the host does",
        ),
        ("bandwidth", "mvm limits no cards: `tc` on the host does"),
        (
            "vlan",
            "mvm tags no packets of a tap: the bridge does (`bridge vlan`)",
        ),
        (
            "port",
            "mvm's taps are joined to a bridge alone (`isolated` is the bridge's: `bridge link`)",
        ),
        (
            "virtualport",
            "mvm's taps join bridges of the kernel, and no Open vSwitch or VEPA",
        ),
        ("teaming", "mvm pairs no cards"),
        ("coalesce", "mvm leaves it as the kernel has it"),
        ("backenddomain", "that is for Xen"),
        ("guest", "that is for containers"),
        (
            "script",
            "mvm runs no scripts for cards; a `[hook.NAME]` runs one for the guest",
        ),
        (
            "downscript",
            "mvm runs no scripts for cards; a `[hook.NAME]` runs one for the guest",
        ),
        ("tune", "mvm leaves it as the kernel has it"),
        (
            "ip",
            "the guest's address is the guest's, or that of QEMU's own network",
        ),
        ("route", "mvm adds no routes"),
    ] {
        for found in one.children(part) {
            out.left(found, why);
        }
    }
    if let Some(link) = one.child("link") {
        if !link.is("state", "up") {
            out.left(link, "mvm's cards are plugged in when the guest starts");
        }
    }
    // Of a tap of libvirt's that is there while the guest runs.
    if let Some(target) = one.child("target") {
        if target.peek("managed") == Some("no")
            || !target
                .peek("dev")
                .is_some_and(|dev| dev.starts_with("vnet"))
        {
            let _libvirt_makes_it_or_finds_it = target.flag("managed");
            if out.has(&table, "tap.name") {
                target.attr("dev");
            } else {
                out.left_attr(target, "dev", "the card has no tap of the host");
            }
        } else {
            out.fine(target, "libvirt's name of a running guest's tap");
        }
    }
}

/// Where the card leads; `false` where mvm has nothing like it.
fn other_end(one: El<'_>, kind: &str, name: &str, table: &str, out: &mut Draft) -> bool {
    let source = one.child("source");
    let read = |what: &str| source.and_then(|source| source.attr(what));
    match kind {
        "bridge" => {
            let bridge = read("bridge").unwrap_or_default();
            tap(one, name, bridge, table, out);
        }
        "network" => {
            let network = read("network").unwrap_or_default();
            let _ = (read("portid"), read("portgroup"));
            match read("bridge") {
                // A running domain's XML tells what the network is.
                Some(bridge) => tap(one, name, bridge, table, out),
                None => {
                    out.say(table, &format!("It was on libvirt's network `{}`. Instead of QEMU's NAT it can join the", short(network)));
                    out.say(table, &format!("bridge of that network: tap = {{ name = \"{}\", bridge = \"virbr0\" }}", tap_name(name)));
                    out.put(one, table, "user", Table::new());
                    out.told(
                        source.unwrap_or(one),
                        "mvm has no networks of its own: the card is on QEMU's NAT; its comment says how it joins a bridge",
                    );
                }
            }
        }
        "user" => user(one, source, table, out),
        "ethernet" => {
            let dev = one
                .all()
                .find(|part| part.name() == "target")
                .and_then(|target| target.peek("dev"));
            match dev {
                Some(dev) => out.put(one, table, "tap.name", dev),
                None => out.put(one, table, "tap.name", tap_name(name)),
            }
        }
        "vhostuser" => {
            if let Some(path) = read("path") {
                read("type");
                out.put(one, table, "vhost-user.socket", path);
                // libvirt says whose end QEMU's is.
                if read("mode") == Some("server") {
                    out.put(one, table, "vhost-user.server", true);
                }
                if let Some(reconnect) = source.and_then(|source| source.child("reconnect")) {
                    out.left(reconnect, "mvm leaves a lost connection to QEMU");
                }
            }
        }
        "direct" => {
            out.say(table, "It was on a macvtap of the host; a bridge does the same: tap = { name = …, bridge = … }");
            out.put(one, table, "user", Table::new());
            out.told(
                one,
                "mvm makes no macvtaps: the card is on QEMU's NAT until it is put on a bridge",
            );
            if let Some(source) = source {
                source.whole();
            }
        }
        "mcast" | "server" | "client" | "udp" | "internal" | "null" | "vds" | "vdpa" => {
            if let Some(source) = source {
                source.whole();
            }
            out.say(table, "It was on a network of its kind, without a way out.");
            out.put(one, table, "user.restrict", true);
            out.told(
                one,
                "mvm has no such network: the card is on one that reaches this host only",
            );
        }
        _ => {
            out.left(one, "mvm has no such network");
            return false;
        }
    }
    true
}

fn tap_name(name: &str) -> String {
    format!("tap-{name}").chars().take(15).collect()
}

fn tap(one: El<'_>, name: &str, bridge: &str, table: &str, out: &mut Draft) {
    let dev = one
        .all()
        .find(|part| part.name() == "target")
        .and_then(|target| target.peek("dev"));
    let own = dev
        .filter(|dev| !dev.starts_with("vnet"))
        .map(str::to_owned);
    out.put(
        one,
        table,
        "tap.name",
        own.unwrap_or_else(|| tap_name(name)),
    );
    out.put(one, table, "tap.bridge", bridge);
}

fn user(one: El<'_>, source: Option<El<'_>>, table: &str, out: &mut Draft) {
    if let Some(source) = source {
        out.left(
            source,
            "mvm's NAT is QEMU's, on every interface of the host",
        );
    }
    if let Some(backend) = one.child("backend") {
        out.left(backend, "mvm's NAT is QEMU's own, and not passt");
    }
    let mut all = Vec::new();
    let mut first = None;
    for forward in one.children("portForward") {
        let protocol = forward.attr("proto").unwrap_or("tcp");
        out.left_attr(forward, "dev", "mvm's forwards listen on an address");
        let listen = forward
            .attr("address")
            .map(|address| format!("{address}:"))
            .unwrap_or_default();
        for range in forward.children("range") {
            let start = count(range, "start");
            let (Some(start), None, None) = (start, range.peek("end"), range.peek("exclude"))
            else {
                out.left(range, "mvm's forwards are of one port each");
                continue;
            };
            let to = count(range, "to").unwrap_or(start);
            // libvirt listens on every address where it is told none; mvm on this host's own.
            let prefix = if protocol == "udp" { "udp:" } else { "" };
            all.push(Value::String(format!("{prefix}{listen}{start}:{to}")));
            first.get_or_insert(forward);
            if listen.is_empty() {
                out.told(range, format!("mvm's forward listens on 127.0.0.1 only; `0.0.0.0:{start}:{to}` on every address"));
            }
        }
    }
    match first {
        Some(first) => out.put(first, table, "user.forward", all),
        None => out.put(one, table, "user", Table::new()),
    }
}

fn model(model: &str) -> &str {
    match model {
        "virtio-transitional" | "virtio-non-transitional" => "virtio",
        // mvm's `e1000` is the board's usual one, on q35 the later 82574L.
        "e1000" => "e1000-82540em",
        "e1000e" => "e1000e",
        "ne2k_pci" => "ne2k",
        other => other,
    }
}

fn driver(driver: El<'_>, kind: &str, table: &str, out: &mut Draft) {
    let taps = matches!(kind, "bridge" | "network" | "ethernet");
    match driver.attr("name") {
        Some("qemu") if taps && out.has(table, "tap.name") => {
            out.put(driver, table, "tap.vhost", false);
        }
        Some("vhost") if taps && out.has(table, "tap.name") => {
            out.put(driver, table, "tap.vhost", true);
        }
        Some("vhost" | "qemu") | None => {}
        Some(_) => out.told(driver, "mvm has no such driver"),
    }
    // One pair is what a card has anyhow.
    if !driver.is("queues", "1") {
        if let Some(many) = count(driver, "queues") {
            out.put(driver, table, "queues", many);
        }
    }
    for (attribute, key) in [
        ("rx_queue_size", "rx-queue-size"),
        ("tx_queue_size", "tx-queue-size"),
    ] {
        if let Some(many) = count(driver, attribute) {
            out.put(driver, table, key, many);
        }
    }
    for attribute in ["txmode", "rss", "rss_hash_report"] {
        out.left_attr(driver, attribute, "mvm leaves it as QEMU has it");
    }
    for side in ["host", "guest"] {
        if let Some(found) = driver.child(side) {
            out.left(found, "mvm leaves the offloads as QEMU has them");
        }
    }
    virtio(driver, table, out);
}
