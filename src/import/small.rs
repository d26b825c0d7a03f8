//! The devices that are a table or two: random numbers, balloon, TPM, watchdog, shares and others.

use super::address;
use super::devices::{count, name, single, virtio};
use super::draft::{Draft, id};
use super::reader::El;
use super::units::amount;
use crate::profile;

pub(super) fn small(all: El<'_>, out: &mut Draft) {
    for one in all.children("rng") {
        rng(one, out);
    }
    for one in all.children("memballoon") {
        balloon(one, out);
    }
    for one in all.children("tpm") {
        tpm(one, out);
    }
    for one in all.children("watchdog") {
        watchdog(one, out);
    }
    for one in all.children("panic") {
        panic(one, out);
    }
    for one in all.children("vsock") {
        vsock(one, out);
    }
    for (at, one) in all.children("filesystem").into_iter().enumerate() {
        share(one, at, out);
    }
    for one in all.children("shmem") {
        shmem(one, out);
    }
    for one in all.children("iommu") {
        iommu(one, out);
    }
    for (part, why) in [
        ("smartcard", "mvm has no smartcards"),
        ("hub", "mvm's USB has no hubs; it has ports enough"),
        (
            "memory",
            "mvm adds no memory modules; `memory.size` is all of it",
        ),
        ("lease", "mvm has no lock manager"),
        ("nvram", "that is for pseries guests"),
        ("crypto", "mvm has no virtio-crypto"),
        ("pstore", "mvm keeps no crash logs of the guest's kernel"),
    ] {
        for found in all.children(part) {
            out.left(found, why);
        }
    }
}

/// libvirt gives every guest a balloon that does not refuse it.
pub(super) fn without_balloon(all: El<'_>, out: &mut Draft) {
    if !all.all().any(|one| one.name() == "memballoon") {
        out.say(
            "balloon",
            "libvirt's guests have one unless they refuse it.",
        );
        out.put(all, "balloon", "enabled", true);
    }
}

fn is_virtio(model: Option<&str>) -> bool {
    matches!(
        model,
        None | Some("virtio" | "virtio-transitional" | "virtio-non-transitional")
    )
}

fn rng(one: El<'_>, out: &mut Draft) {
    if !is_virtio(one.attr("model")) {
        return out.left(one, "mvm's is virtio-rng");
    }
    single(one, "rng0", Some("mvm-rng"), out);
    let backend = one.child("backend");
    match backend.and_then(|backend| backend.attr("model")) {
        Some("random") => {
            let source = backend.map(El::text).unwrap_or_default();
            let source = if source.is_empty() {
                "/dev/urandom".to_owned()
            } else {
                source
            };
            out.put(one, "rng", "source", source);
        }
        Some("builtin") => {
            out.put(one, "rng", "enabled", true);
            out.told(
                one,
                "mvm's source is the host's `/dev/urandom`, from which QEMU's own is fed",
            );
        }
        _ => {
            return out.left(
                one,
                "mvm's source of random numbers is a device of the host",
            );
        }
    }
    if let Some(rate) = one.child("rate") {
        out.left(rate, "mvm does not limit how much the guest takes");
    }
    if let Some(driver) = one.child("driver") {
        virtio(driver, "rng", out);
    }
    address::place(one, None, out);
}

fn balloon(one: El<'_>, out: &mut Draft) {
    match one.attr("model") {
        Some("none") => return out.put(one, "balloon", "enabled", false),
        model if is_virtio(model) => out.put(one, "balloon", "enabled", true),
        _ => return out.left(one, "mvm's is virtio-balloon"),
    }
    single(one, "balloon0", Some("mvm-balloon"), out);
    for (attribute, key) in [
        ("autodeflate", "deflate-on-oom"),
        ("freePageReporting", "free-page-reporting"),
    ] {
        if let Some(on) = one.flag(attribute) {
            out.put(one, "balloon", key, on);
        }
    }
    if let Some(stats) = one.child("stats") {
        out.fine(stats, "`mvm memory` asks when it is asked");
    }
    if let Some(driver) = one.child("driver") {
        virtio(driver, "balloon", out);
    }
    address::place(one, None, out);
}

fn tpm(one: El<'_>, out: &mut Draft) {
    single(one, "tpm0", Some("mvm-tpm"), out);
    let model = one.read("model", |model| match model {
        "tpm-crb" => Some("crb"),
        "tpm-tis" => Some("tis"),
        _ => None,
    });
    let Some(backend) = one.child("backend") else {
        return out.left(one, "it has no backend");
    };
    match backend.attr("type") {
        Some("emulator") => {
            out.put(one, "tpm", "emulator", toml::Table::new());
            if let Some(version) = backend.attr("version") {
                out.put(backend, "tpm", "version", version);
            }
            if backend.flag("persistent_state") == Some(false) {
                out.told(
                    backend,
                    "mvm keeps what the TPM holds until the guest is removed",
                );
            }
            out.left_attr(backend, "debug", "mvm leaves swtpm's log as it is");
            for part in backend.all().collect::<Vec<_>>() {
                let why = match part.name() {
                    "encryption" => {
                        "mvm's state of the TPM is not encrypted, and no secret is copied"
                    }
                    "active_pcr_banks" => "mvm leaves the banks to swtpm",
                    "source" => "mvm keeps the state with the guest's; `mvm show` tells where",
                    _ => "mvm leaves it as swtpm has it",
                };
                out.left(part.enter(), why);
            }
        }
        Some("passthrough") => {
            let path = backend
                .child("device")
                .and_then(|device| device.attr("path"));
            out.put(
                backend,
                "tpm",
                "passthrough.path",
                path.unwrap_or("/dev/tpm0"),
            );
        }
        _ => return out.left(one, "mvm has no such TPM"),
    }
    if let Some(model) = model {
        out.put(one, "tpm", "model", model);
    }
    address::place(one, None, out);
}

fn watchdog(one: El<'_>, out: &mut Draft) {
    let model = one.peek("model").unwrap_or_default();
    if model == "itco" {
        return out.left(one, "q35 has it by itself; mvm's watchdog is `i6300esb`");
    }
    single(one, "watchdog0", Some("mvm-watchdog"), out);
    one.attr("model");
    out.put(one, "watchdog", "model", model);
    let action = one.attr("action").unwrap_or("reset");
    match action {
        "dump" => out.told(one, "mvm writes no dump of a guest's memory; it is reset"),
        action => out.put(one, "watchdog", "action", action),
    }
    address::place(one, None, out);
}

fn panic(one: El<'_>, out: &mut Draft) {
    match one.peek("model") {
        None | Some("isa" | "pvpanic") => {
            one.attr("model");
            single(one, "panic0", Some("mvm-panic"), out);
            out.put(one, "panic", "enabled", true);
            address::place(one, None, out);
        }
        _ => out.left(one, "mvm's is pvpanic"),
    }
}

fn vsock(one: El<'_>, out: &mut Draft) {
    if !is_virtio(one.attr("model")) {
        return out.left(one, "mvm's is vhost-vsock");
    }
    single(one, "vsock0", Some("mvm-vsock"), out);
    let cid = one.child("cid");
    match cid {
        Some(cid) if cid.flag("auto") == Some(true) => {
            // The number is that of a running guest.
            cid.attr("address");
            out.put(cid, "vsock", "enabled", true);
        }
        Some(cid) => match count(cid, "address") {
            Some(number) => out.put(cid, "vsock", "cid", number),
            None => out.put(one, "vsock", "enabled", true),
        },
        None => out.put(one, "vsock", "enabled", true),
    }
    if let Some(driver) = one.child("driver") {
        virtio(driver, "vsock", out);
    }
    address::place(one, None, out);
}

fn share(one: El<'_>, at: usize, out: &mut Draft) {
    if !matches!(one.attr("type"), None | Some("mount")) {
        return out.left(one, "mvm shares folders of the host, and nothing else");
    }
    let driver = one.child("driver");
    let kind = match driver.and_then(|driver| driver.attr("type")) {
        None | Some("path" | "handle") => "path",
        Some("virtiofs") => "virtiofs",
        Some(_) => return out.left(one, "mvm shares folders of the host, and nothing else"),
    };
    let folder = one.child("source").and_then(|source| source.attr("dir"));
    let tag = one.child("target").and_then(|target| target.attr("dir"));
    let (Some(folder), Some(tag)) = (folder, tag) else {
        return out.left(one, "it names no folder and tag");
    };
    // The guest mounts the one otherwise than the other.
    let virtiofs_is_taken =
        || profile::refused("[share.a]\npath = \"/\"\nvirtiofs = {}\n").is_empty();
    if kind == "virtiofs" && !virtiofs_is_taken() {
        return out.left(
            one,
            "mvm's shares are 9p: a `[share.NAME]` of the folder is mounted by `mount -t 9p` in the guest",
        );
    }
    let mut own = name(one, format!("fs{at}"), out);
    if !own.starts_with("ua-") {
        out.rename(&own, &id(tag));
        own = id(tag);
    }
    let table = format!("share.{own}");
    out.put(one, &table, "path", folder);
    out.put(one, &table, "tag", tag);
    if one.child("readonly").is_some() {
        out.put(one, &table, "read-only", true);
    }
    if kind == "virtiofs" {
        let _the_only_one = one.is("accessmode", "passthrough");
        virtiofs(one, driver, &table, out);
    } else {
        let model = one.read("accessmode", |mode| match mode {
            "passthrough" => Some("passthrough"),
            "squash" => Some("none"),
            "mapped" => Some("mapped-xattr"),
            _ => None,
        });
        let model = model.unwrap_or("passthrough");
        out.put(one, &table, "security-model", model);
        for key in ["fmode", "dmode"] {
            if let Some(bits) = one.attr(key) {
                out.put(one, &table, key, bits);
            }
        }
        out.left_attr(one, "multidevs", "mvm leaves it as QEMU has it");
        if let Some(driver) = driver {
            out.left_attr(driver, "wrpolicy", "mvm writes as QEMU does of itself");
            virtio(driver, &table, out);
        }
    }
    for part in ["space_hard_limit", "space_soft_limit"] {
        if let Some(found) = one.child(part) {
            out.left(found, "that is for containers");
        }
    }
    address::place(one, None, out);
}

fn virtiofs(one: El<'_>, driver: Option<El<'_>>, table: &str, out: &mut Draft) {
    let mut said = false;
    if let Some(binary) = one.child("binary") {
        if let Some(path) = binary.attr("path") {
            out.told(
                binary,
                format!(
                    "mvm finds virtiofsd itself ({})",
                    super::reader::short(path)
                ),
            );
        }
        if let Some(on) = binary.flag("xattr") {
            out.put(binary, table, "virtiofs.xattr", on);
            said = true;
        }
        for (element, attribute, key) in [
            ("cache", "mode", "virtiofs.cache"),
            ("sandbox", "mode", "virtiofs.sandbox"),
        ] {
            let word = binary
                .child(element)
                .and_then(|found| found.attr(attribute));
            if let Some(word) = word {
                let word = if word == "none" { "never" } else { word };
                out.put(binary, table, key, word);
                said = true;
            }
        }
        if let Some(pool) = binary.child("thread_pool") {
            if let Some(size) = count(pool, "size") {
                out.put(pool, table, "virtiofs.thread-pool", size);
                said = true;
            }
        }
        for part in binary
            .all()
            .filter(|part| !part.is_seen())
            .collect::<Vec<_>>()
        {
            out.left(part.enter(), "mvm leaves it as virtiofsd has it");
        }
    }
    if let Some(driver) = driver {
        if let Some(size) = count(driver, "queue") {
            out.put(driver, table, "virtiofs.queue-size", size);
            said = true;
        }
        virtio(driver, table, out);
    }
    if !said {
        out.put(one, table, "virtiofs", toml::Table::new());
    }
}

fn shmem(one: El<'_>, out: &mut Draft) {
    let called = one.attr("name").unwrap_or("shmem");
    let model = one.child("model").and_then(|model| model.attr("type"));
    if model != Some("ivshmem-plain") || one.peek("role") == Some("peer") {
        return out.left(one, "mvm's shared memory is `ivshmem-plain`");
    }
    one.attr("role");
    let table = format!("shmem.{}", id(called));
    single(one, "shmem0", Some(&id(called)), out);
    // libvirt's own default.
    let size = one.child("size").and_then(amount);
    let size = size.map_or_else(|| "4M".to_owned(), |size| size.to_string());
    out.put(one, &table, "size", size);
    out.put(one, &table, "path", format!("/dev/shm/{called}"));
    for part in ["server", "msi"] {
        if let Some(found) = one.child(part) {
            out.left(found, "mvm's shared memory is `ivshmem-plain`");
        }
    }
    address::place(one, None, out);
}

fn iommu(one: El<'_>, out: &mut Draft) {
    single(one, "iommu0", Some("mvm-iommu"), out);
    if let Some(model) = one.attr("model") {
        out.put(one, "iommu", "model", model);
    }
    if let Some(driver) = one.child("driver") {
        for (attribute, key) in [
            ("caching_mode", "caching-mode"),
            ("iotlb", "device-iotlb"),
            ("intremap", "interrupt-remapping"),
        ] {
            if let Some(on) = driver.flag(attribute) {
                out.put(driver, "iommu", key, on);
            }
        }
        if let Some(bits) = count(driver, "aw_bits") {
            out.put(driver, "iommu", "aw-bits", bits);
        }
        for attribute in ["eim", "dma_translation", "xtsup", "pt", "granule"] {
            out.left_attr(driver, attribute, "mvm leaves it as QEMU has it");
        }
    }
    address::place(one, None, out);
}
