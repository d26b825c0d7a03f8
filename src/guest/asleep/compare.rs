//! Whether a guest that sleeps would wake in the machine that it knows.
//!
//! Compared is what the guest sees. Where packets go, how disks are cached, as whom QEMU runs and the like is
//! the host's affair.

use std::collections::BTreeMap;
use std::fmt::Display;

use crate::machine::desktop::video::GPU_ID;
use crate::machine::slots::Slots;
use crate::machine::{Disk, Firmware, HostDevice, HostDeviceKind, Machine};
use crate::profile::schema::{Irqchip, Media};

/// What a guest would find changed, one clause each, as in `memory is 1G and was 2G`.
pub(super) fn differences(was: &Machine, is: &Machine) -> Vec<String> {
    let mut found = Found(Vec::new());
    found.value("the architecture", &was.arch, &is.arch);
    found.value("the board", &was.board.machine_type, &is.board.machine_type);
    found.value("the accelerator", &accel(was), &accel(is));
    found.value("the processor model", &was.cpu.model, &is.cpu.model);
    found.value("the number of processors", &was.cpu.count, &is.cpu.count);
    found.value("the topology", &topology(was), &topology(is));
    found.value("memory", &was.memory, &is.memory);
    found.set("NUMA node", nodes(was), nodes(is));
    found.value("the HPET", &hpet(was), &hpet(is));
    found.value("the interrupt controller", &irqchip(was), &irqchip(is));
    found.value("the kernel", &kernel(was), &kernel(is));
    found.value("the firmware", &firmware(was), &firmware(is));
    found.set("disk", disks(was), disks(is));
    found.set("network card", nics(was), nics(is));
    found.set("console", consoles(was), consoles(is));
    found.set("channel", channels(was), channels(is));
    found.set("share", shares(was), shares(is));
    found.set("device", devices(was), devices(is));
    found.set("video", videos(was), videos(is));
    found.set("audio", sound(was), sound(is));
    found.set("input", inputs(was), inputs(is));
    found.set("shmem", shmem(was), shmem(is));
    for (what, was, is) in [
        ("the agent's channel", was.agent, is.agent),
        (
            "the random number generator",
            was.rng.is_some(),
            is.rng.is_some(),
        ),
        ("the balloon", was.balloon, is.balloon),
        (
            "the watchdog",
            was.watchdog.is_some(),
            is.watchdog.is_some(),
        ),
        (
            "the virtual socket",
            was.vsock.is_some(),
            is.vsock.is_some(),
        ),
        (
            "the virtio-iommu",
            was.board.virtio_iommu,
            is.board.virtio_iommu,
        ),
        ("the TPM", was.tpm.is_some(), is.tpm.is_some()),
        (
            "the IOMMU of the board",
            was.board.iommu.is_some(),
            is.board.iommu.is_some(),
        ),
        ("VMware's port", was.board.vmport, is.board.vmport),
        ("System Management Mode", smm(was), smm(is)),
        ("the virtual GPU", was.virtio_gpu, is.virtio_gpu),
        (
            "the channel of SPICE's agent",
            was.desktop.has_agent(),
            is.desktop.has_agent(),
        ),
        (
            "the channel of SPICE's folders",
            was.desktop.has_webdav(),
            is.desktop.has_webdav(),
        ),
        ("sleep (S3)", was.power.s3, is.power.s3),
        ("hibernation (S4)", was.power.s4, is.power.s4),
    ] {
        found.presence(what, was, is);
    }
    found.value(
        "the number of USB devices of a viewer",
        &was.desktop.usb_redirects,
        &is.desktop.usb_redirects,
    );
    found.value("the USB controller", &usb(was), &usb(is));
    // A guest of an older mvm had what `laid` gives to all.
    let before = was.positions.laid(was);
    let moved = before.moved(&is.positions);
    found
        .0
        .extend(moved.map(|name| format!("`{name}` sits elsewhere")));
    found.value(
        "the number of ports for hot-plug",
        &was.hotplug_ports,
        &is.hotplug_ports,
    );
    // A guest that knows more or fewer bridges has other numbers for its buses.
    let ports = |machine: &Machine| -> Vec<String> {
        let ports = Slots::of(machine).root_ports();
        ports.map(|port| port.id()).collect()
    };
    if found.0.is_empty() && ports(was) != ports(is) {
        found.0.push("its PCI Express ports are others".to_owned());
    }
    found.value(
        "`qemu-args`",
        &was.qemu_args.join(" "),
        &is.qemu_args.join(" "),
    );
    found.0
}

/// The same of what the saved state of a guest names and the guest does not see.
pub(super) fn unloadable(was: &Machine, is: &Machine) -> Vec<String> {
    let mut found = Found(Vec::new());
    // QEMU names the memory by it. That of nodes has their names.
    let backend = |machine: &Machine| machine.ram.backend.is_some();
    found.presence("the memory backend", backend(was), backend(is));
    found.0
}

struct Found(Vec<String>);

impl Found {
    fn value<T: PartialEq + Display>(&mut self, what: &str, was: &T, is: &T) {
        if was != is {
            self.0.push(format!("{what} is {is} and was {was}"));
        }
    }

    fn presence(&mut self, what: &str, was: bool, is: bool) {
        match (was, is) {
            (true, false) => self.0.push(format!("{what} is missing")),
            (false, true) => self.0.push(format!("{what} is new")),
            _ => {}
        }
    }

    fn set(&mut self, what: &str, was: BTreeMap<&str, String>, is: BTreeMap<&str, String>) {
        for (id, before) in &was {
            match is.get(id) {
                None => self.0.push(format!("{what} `{id}` is missing")),
                Some(now) => self.value(&format!("{what} `{id}`"), before, now),
            }
        }
        for id in is.keys().filter(|id| !was.contains_key(*id)) {
            self.0.push(format!("{what} `{id}` is new"));
        }
    }
}

fn accel(machine: &Machine) -> String {
    format!("{:?}", machine.accel.chosen).to_uppercase()
}

fn topology(machine: &Machine) -> String {
    let cpu = &machine.cpu;
    let parts = [
        ("sockets", cpu.sockets),
        ("dies", cpu.dies),
        ("clusters", cpu.clusters),
        ("cores", cpu.cores),
        ("threads", cpu.threads),
    ];
    // Not every board has dies and clusters.
    let said = parts
        .iter()
        .filter(|(part, count)| *count > 1 || !matches!(*part, "dies" | "clusters"));
    let said: Vec<String> = said
        .map(|(part, count)| format!("{count} {part}"))
        .collect();
    said.join(" × ")
}

/// The number is a part of what the guest sees.
fn nodes(machine: &Machine) -> BTreeMap<&str, String> {
    let nodes = machine.ram.numa.iter().enumerate();
    nodes
        .map(|(number, node)| {
            let cpus = node.cpus.iter().map(|(a, b)| format!("{a}-{b}"));
            let far = node.distances.iter().map(|(to, far)| format!("{to}:{far}"));
            let cpus = cpus.collect::<Vec<_>>().join(",");
            let far = far.collect::<Vec<_>>().join(",");
            let text = format!(
                "number {number} with {}, processors `{cpus}` and distances `{far}`",
                node.memory
            );
            (node.id.as_str(), text)
        })
        .collect()
}

/// What is not said is as QEMU has it.
fn hpet(machine: &Machine) -> &'static str {
    match machine.clock.hpet {
        Some(false) => "off",
        Some(true) | None => "on",
    }
}

fn irqchip(machine: &Machine) -> String {
    let place = machine.board.irqchip.unwrap_or(Irqchip::Kernel);
    let gic = machine.board.gic;
    gic.map_or_else(|| place.to_string(), |gic| format!("GIC {gic}, {place}"))
}

fn smm(machine: &Machine) -> bool {
    matches!(machine.firmware, Firmware::Flash { smm: true, .. })
}

fn kernel(machine: &Machine) -> String {
    let Some(kernel) = &machine.kernel else {
        return "the disk's own".to_owned();
    };
    let initrd = kernel
        .initrd
        .as_ref()
        .map(|path| path.display().to_string());
    format!(
        "{} with {} and `{}`",
        kernel.image.display(),
        initrd.as_deref().unwrap_or("no ramdisk"),
        kernel.append
    )
}

fn firmware(machine: &Machine) -> String {
    match &machine.firmware {
        Firmware::Builtin => "the board's own".to_owned(),
        Firmware::Bios(path) => path.display().to_string(),
        Firmware::Flash { code, .. } => code.display().to_string(),
    }
}

fn disks(machine: &Machine) -> BTreeMap<&str, String> {
    let disks = machine.disks.iter();
    disks
        .map(|disk| (disk.id.as_str(), disk_in_words(disk)))
        .collect()
}

fn disk_in_words(disk: &Disk) -> String {
    // A medium can be changed while the guest sleeps, as while it runs.
    let image = match (&disk.image, disk.media) {
        (Some(image), Media::Disk) => image.path.display().to_string(),
        _ => disk.media.to_string(),
    };
    let more = if disk.read_only { ", read-only" } else { "" };
    let throwaway = if disk.overlay.is_some() {
        ", throw-away"
    } else {
        ""
    };
    format!("{image} on {}{more}{throwaway}", disk.bus)
}

fn nics(machine: &Machine) -> BTreeMap<&str, String> {
    let nics = machine.nics.iter();
    nics.map(|nic| (nic.id.as_str(), format!("{} {}", nic.model, nic.mac)))
        .collect()
}

fn consoles(machine: &Machine) -> BTreeMap<&str, String> {
    let consoles = machine.consoles.iter();
    consoles
        .map(|console| (console.id.as_str(), console.device().to_owned()))
        .collect()
}

fn channels(machine: &Machine) -> BTreeMap<&str, String> {
    let channels = machine.channels.iter();
    channels
        .map(|channel| (channel.id.as_str(), channel.port.clone()))
        .collect()
}

fn shares(machine: &Machine) -> BTreeMap<&str, String> {
    let shares = machine.shares.iter();
    shares
        .map(|share| {
            let kind = share.virtiofs.as_ref().map_or("9p", |_| "virtiofs");
            (share.id.as_str(), format!("{} ({kind})", share.tag))
        })
        .collect()
}

fn devices(machine: &Machine) -> BTreeMap<&str, String> {
    let devices = machine.host_devices.iter();
    devices
        .map(|device| (device.id.as_str(), device_in_words(device)))
        .collect()
}

/// The one that `gpu.virtio` makes is compared as that.
fn videos(machine: &Machine) -> BTreeMap<&str, String> {
    let videos = machine.desktop.video.iter();
    videos
        .filter(|video| video.id.as_str() != GPU_ID)
        .map(|video| {
            let driver = video.driver(machine.board.kind);
            let text = format!("{driver} {:?}", video.properties());
            (video.id.as_str(), text)
        })
        .collect()
}

/// Where the sound goes is the host's affair.
fn sound(machine: &Machine) -> BTreeMap<&str, String> {
    let audio = machine.desktop.audio.iter();
    audio
        .map(|audio| {
            let codec = audio.codec().unwrap_or("no codec");
            (
                audio.id.as_str(),
                format!("{} with {codec}", audio.driver()),
            )
        })
        .collect()
}

/// The host's own come and go without the guest's seeing it.
fn inputs(machine: &Machine) -> BTreeMap<&str, String> {
    let inputs = machine.desktop.inputs.iter();
    inputs
        .filter_map(|input| {
            let driver = input.driver(machine.board.kind)?;
            Some((input.id.as_str(), driver.to_owned()))
        })
        .collect()
}

fn shmem(machine: &Machine) -> BTreeMap<&str, String> {
    let shmem = machine.desktop.shmem.iter();
    shmem
        .map(|shmem| (shmem.id.as_str(), shmem.size.to_string()))
        .collect()
}

fn usb(machine: &Machine) -> String {
    let usb = machine.desktop.usb;
    format!("{} with {} ports", usb.model, usb.ports)
}

/// What device of the host it is. The address of a virtual function that is made anew can be another one.
fn device_in_words(device: &HostDevice) -> String {
    match &device.kind {
        HostDeviceKind::Pci(pci) => pci.function.to_string(),
        HostDeviceKind::Mdev(mdev) => match &mdev.type_id {
            Some(type_id) => format!("{type_id} of {}", mdev.parent),
            None => mdev.uuid.to_string(),
        },
        HostDeviceKind::Usb(usb) => format!("{:04x}:{:04x}", usb.vendor, usb.product),
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;
    use crate::guest::testguest::Place;

    #[test]
    fn what_the_guest_sees_is_told_and_nothing_else() {
        let place = Place::new();
        let was = place.plan("g").machine;
        let mut is = was.clone();
        is.stop_timeout = crate::units::Span::secs(1);
        is.notes = vec!["a note".to_owned()];
        is.qemu.version = (10, 0, 0);
        assert_eq!(differences(&was, &is), Vec::<String>::new());
        is.memory = "2G".parse().unwrap();
        is.balloon = !was.balloon;
        is.consoles.clear();
        is.cpu.dies = 2;
        let told = differences(&was, &is);
        assert_eq!(told.len(), 4, "{told:?}");
        assert_eq!(
            told[0],
            "the topology is 1 sockets × 2 dies × 1 cores × 1 threads and was 1 sockets × 1 cores × 1 threads"
        );
        assert!(told[1].starts_with("memory is 2G and was "), "{told:?}");
        assert_eq!(told[2], "console `main` is missing");
        assert_eq!(told[3], "the balloon is new");
    }

    #[test]
    fn a_saved_state_needs_the_board_and_the_memory_that_it_names() {
        let place = Place::new();
        let was = place.plan("g").machine;
        let mut is = was.clone();
        is.clock.hpet = Some(false);
        is.board.vmport = !was.board.vmport;
        is.board.irqchip = Some(Irqchip::Split);
        is.ram.numa = vec![crate::machine::memory::NumaNode {
            id: "near".parse().unwrap(),
            cpus: vec![(0, 0)],
            memory: was.memory,
            place: crate::machine::memory::HostNodes::default(),
            distances: Vec::new(),
        }];
        let told = differences(&was, &is);
        assert_eq!(
            told,
            [
                "NUMA node `near` is new",
                "the HPET is off and was on",
                "the interrupt controller is split and was kernel",
                "VMware's port is new",
            ]
        );
        assert_eq!(unloadable(&was, &is), Vec::<String>::new());
        is.ram.backend = Some(crate::machine::memory::RamBackend {
            kind: crate::machine::memory::RamKind::Memfd,
            hugepages: None,
            share: true,
            prealloc: false,
        });
        assert_eq!(unloadable(&was, &is), ["the memory backend is new"]);
    }
}
