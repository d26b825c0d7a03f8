//! Profile and facts make a machine: pure, and every question answered.

use std::path::Path;

use super::addition::AdditionError;
use super::board::BoardError;
use super::error::ResolveError;
use super::positions::Positions;
use super::{
    AccelKind, BoardKind, Bus, Firmware, HostDevice, HostDeviceKind, Lifecycle, Machine, Qemu,
    board, boot, check, clock, controller, cpu, cpu_options, desktop, disk, extras, hooks,
    host_devices, hyperv, iommu, lifecycle as ends, memory as ram, names, net, overrides, ports,
    power, run_as, slots, smbios, threads, tpm,
};
use crate::dirs::Dirs;
use crate::host::{HostFacts, Images, QemuCaps};
use crate::ids::GuestName;
use crate::profile::schema::{Layer, LifecycleTable, MachineTable};
use crate::units::{Size, Span};

/// The board has no HPET and no PM timer, and with ACPI no interrupt of the PIT; KVM's clock, which
/// stands in for them, needs KVM. What is left is to measure the TSC by the PIT, which Linux gives up
/// when it is disturbed too often.
const MICROVM_TCG: &str = "on a busy host a kernel may not find its clock on microvm without KVM, \
     and stop after `tsc: Marking TSC unstable`; q35 has more clocks";

/// There was no room left behind the devices that have places.
const MOVED: &str = "devices of the guest sit elsewhere than at its last start: the board has no place left behind them";
/// Ports that are kept free when the profile does not say.
const HOTPLUG_PORTS: u8 = 4;
/// How long a graceful stop may take when the profile does not say.
const STOP_TIMEOUT: Span = Span::secs(60);

/// All that a machine is made from.
#[derive(Debug, Clone, Copy)]
pub struct Inputs<'a> {
    /// The guest's name.
    pub name: &'a GuestName,
    /// The name of its profile or machine file.
    pub profile: &'a str,
    /// The merged profile.
    pub layer: &'a Layer,
    /// The host.
    pub facts: &'a HostFacts,
    /// The files that [`super::files::wanted`] names.
    pub images: &'a Images,
    /// Where mvm keeps things; absolute.
    pub dirs: &'a Dirs,
    /// Where the guest's devices have been at earlier starts.
    pub kept: &'a Positions,
}

/// Makes the machine.
pub fn resolve(inputs: &Inputs) -> Result<Machine, ResolveError> {
    let Inputs {
        name,
        profile,
        layer,
        facts,
        images,
        dirs,
        kept,
    } = *inputs;
    no_nul(layer)?;
    let run_dir = dirs.guest_runtime(name);
    let state_dir = dirs.guest_state(name);
    for dir in [&run_dir, &state_dir] {
        if dir.to_str().is_none() {
            return Err(ResolveError::NotUtf8(format!("{dir:?}")));
        }
    }
    let table = layer.machine.clone().unwrap_or_default();
    let (arch, caps) = board::qemu(&table, facts)?;
    let accel = board::accel(&table, arch, caps, facts)?;
    let mut notes = Vec::new();
    let board = board::board(layer, &table, arch, caps, &accel, facts, &mut notes)?;
    let cpu_table = layer.cpu.clone().unwrap_or_default();
    let cpu = cpu::cpu(&cpu_table, arch, &board, &accel, caps, facts)?;
    let memory = cpu::memory(layer)?;
    let kernel = boot::kernel(layer, images)?;
    let firmware = boot::firmware(
        layer,
        &board,
        kernel.as_ref(),
        caps,
        &facts.firmware,
        images,
        &state_dir,
    )?;
    let iothreads = controller::iothreads(layer);
    let controllers = controller::controllers(layer, board.kind, &iothreads)?;
    let disks = disk::disks(
        layer,
        &disk::Around {
            board: board.kind,
            caps,
            images,
            run_dir: &run_dir,
            boots_from_disk: kernel.is_none(),
            iothreads: &iothreads,
            controllers: &controllers,
            there: &[],
            taken: &net::places(layer),
        },
        &mut notes,
    )?;
    if kernel.is_none() && disks.is_empty() && matches!(firmware, Firmware::Builtin) {
        notes.push(
            "there is neither a kernel nor a disk: the guest will not get past its BIOS".to_owned(),
        );
    }
    if board.kind == BoardKind::Microvm && accel.chosen == AccelKind::Tcg {
        notes.push(MICROVM_TCG.to_owned());
    }
    let lifecycle = Lifecycle::of(
        layer
            .lifecycle
            .as_ref()
            .unwrap_or(&LifecycleTable::default()),
    );
    let nics = net::nics(layer, name, board.kind, facts, images)?;
    net::boot_order(&disks, &nics)?;
    let run_as = run_as::resolve(layer, &facts.users, accel.chosen)?;
    let shares = extras::shares(layer, images, facts, run_as.as_ref())?;
    let mapped_by = Machine::mapped_by(&disks, &nics, &shares);
    let panic = ends::panic(layer, &lifecycle, board.kind, &mut notes)?;
    let ram = ram::ram(
        layer,
        &ram::Around {
            size: memory,
            cpus: cpu.count,
            board: board.kind,
            facts,
            images,
            mapped_by: mapped_by.as_deref(),
        },
    )?;
    crowd(&mut notes, memory, &ram, cpu.count, facts);
    notes.extend(ram::cut_cluster(&ram.numa, &cpu, board.kind));
    let (agent, channels) = ports::channels(layer, images)?;
    let devices = host_devices::resolve(
        host_devices::Asked {
            name,
            layer,
            board: board.kind,
            caps,
            facts,
            images,
        },
        &mut notes,
    )?;
    let has_devices = !devices.devices.is_empty();
    let mut board = board;
    let vfio = |device: &HostDevice| !matches!(device.kind, HostDeviceKind::Usb(_));
    if devices.devices.iter().any(vfio) {
        let table = layer.iommu.clone().unwrap_or_default();
        board.iommu = iommu::with_vfio(&table, board.iommu).map_err(BoardError::from)?;
    }
    let power = power::power(layer, board.kind, &firmware, has_devices, &mut notes)?;
    let iommufd = host_devices::backend(layer, &devices.devices, caps, &facts.devices)?;
    let limit = host_devices::PhysBits {
        devices: &devices.devices,
        iommu: &facts.devices.iommu,
        accel: accel.chosen,
        arch,
    };
    let mut cpu = limit.apply(&cpu_table, cpu)?;
    let clock_table = layer.clock.clone().unwrap_or_default();
    let around = cpu_options::Around {
        arch,
        accel: accel.chosen,
        irqchip: board.irqchip,
        caps,
    };
    cpu_options::add(&cpu_table, &clock_table, around, &mut cpu, &mut notes)?;
    let hyperv = layer.hyperv.clone().unwrap_or_default();
    hyperv::add(&hyperv, around, &facts.cpu, &mut cpu, &mut notes)?;
    let threads = threads::threads(
        layer,
        threads::Around {
            count: cpu.count,
            iothreads: &iothreads,
            arch,
            accel: accel.chosen,
            host: &facts.cpu,
            realtime: facts.realtime,
        },
        &mut notes,
    )?;
    let smbios_table = layer.smbios.clone().unwrap_or_default();
    let desktop = desktop::desktop(
        layer,
        &desktop::Around {
            board: &board,
            caps,
            facts,
            devices: &devices,
            run_dir: &run_dir,
            run_as: run_as.as_ref(),
        },
        &mut notes,
    )?;
    desktop::has_passwords(&desktop, images)?;
    ports::beside(&channels, &desktop)?;
    let mut machine = Machine {
        name: name.clone(),
        profile: profile.to_owned(),
        uuid: smbios::uuid(&smbios_table)?.unwrap_or_else(|| names::uuid(name)),
        arch,
        threads,
        clock: clock::clock(&clock_table, &board, accel.chosen, &mut notes)?,
        smbios: smbios::smbios(&smbios_table, board.kind, &firmware, &facts.dmi, &mut notes)?,
        nics,
        consoles: ports::consoles(layer, board.kind, images)?,
        channels,
        agent,
        shares,
        rng: extras::rng(layer, images)?,
        balloon: extras::balloon(layer),
        balloon_does: extras::balloon_does(layer),
        watchdog: extras::watchdog(layer, board.kind)?,
        panic,
        tpm: tpm::tpm(layer, board.kind, facts, &state_dir)?,
        vsock: extras::vsock(layer, name, facts)?,
        host_devices: devices.devices,
        vfs: devices.vfs,
        companions: devices.companions,
        detach_consoles: devices.detach_consoles,
        iommufd,
        virtio_gpu: layer.gpu.as_ref().and_then(|gpu| gpu.virtio) == Some(true),
        desktop,
        hotplug_ports: hotplug_ports(layer, board.kind)?,
        positions: Positions::default(),
        board,
        accel,
        cpu,
        memory,
        ram,
        kernel,
        firmware,
        disks,
        iothreads,
        controllers,
        trace: layer.trace.clone().unwrap_or_default(),
        boot_menu: boot::menu(layer, images)?,
        hooks: hooks::hooks(layer, images)?,
        env: overrides::env(layer)?,
        overrides: overrides::asked(layer),
        qemu_args: layer.qemu_args.clone().unwrap_or_default(),
        stop_timeout: layer
            .lifecycle
            .as_ref()
            .and_then(|lifecycle| lifecycle.stop_timeout)
            .unwrap_or(STOP_TIMEOUT),
        power,
        lifecycle,
        qemu: qemu(layer, caps)?,
        run_as,
        notes,
        run_dir,
        state_dir,
    };
    ids(&machine)?;
    let (positions, moved) = kept.lay_all(&machine);
    machine.positions = positions;
    if moved {
        machine.notes.push(MOVED.to_owned());
    }
    slots::check(&machine)?;
    slots::check_asked(&machine)?;
    ports::check(&machine)?;
    check::check(&machine, caps)?;
    run_as::check(&machine)?;
    Ok(machine)
}

/// The architecture that a profile's guest has: the QEMU of which the facts are needed.
pub fn arch(layer: &Layer, host: crate::ids::Arch) -> crate::ids::Arch {
    let MachineTable { arch, .. } = layer.machine.clone().unwrap_or_default();
    arch.unwrap_or(host)
}

/// How many ports are kept free: none where devices sit on a bus that takes more by itself, or takes none.
fn hotplug_ports(layer: &Layer, board: BoardKind) -> Result<u8, ResolveError> {
    let asked = layer.hotplug.as_ref().and_then(|table| table.ports);
    if board.bus() != Bus::Pcie {
        return match asked {
            None | Some(0) => Ok(0),
            Some(_) => Err(AdditionError::NoPorts(board.to_string()).into()),
        };
    }
    // `slots::check` has the limit.
    Ok(asked.map_or(HOTPLUG_PORTS, |asked| {
        u8::try_from(asked).unwrap_or(u8::MAX)
    }))
}

fn qemu(layer: &Layer, caps: &QemuCaps) -> Result<Qemu, ResolveError> {
    let asked = layer.qemu.as_ref().and_then(|qemu| qemu.sandbox);
    let has = caps.options.is_empty() || caps.has_option("sandbox", "enable");
    if asked == Some(true) && !has {
        return Err(check::LackError::Backend {
            what: "`qemu.sandbox = true`".to_owned(),
            name: "the seccomp sandbox",
            version: caps.version.to_string(),
        }
        .into());
    }
    let version = caps.version;
    Ok(Qemu {
        binary: caps.binary.clone(),
        version: (version.0, version.1, version.2),
        sandbox: asked.unwrap_or(has),
    })
}

/// Says when the guest is more than the host has.
fn crowd(notes: &mut Vec<String>, memory: Size, ram: &ram::Ram, cpus: u32, facts: &HostFacts) {
    let available = facts.memory.available;
    // Huge pages that are free are no part of what the kernel says is available.
    let huge = ram.hugepages(memory).first().map_or(0, |pages| {
        let mut pools = facts.memory.hugepages.iter();
        let pool = pools.find(|pool| pool.size == pages.size.as_bytes());
        pool.map_or(0, |pool| pool.free.saturating_mul(pool.size))
    });
    let available = if available > 0 {
        available.saturating_add(huge)
    } else {
        0
    };
    if available > 0 && memory.as_bytes() > available {
        // Whole gibibytes read better, and the rest of many changes from one look to the next.
        let available = match available >> 30 {
            0..4 => Size::mib(available >> 20),
            gib => Size::mib(gib << 10),
        };
        notes.push(format!(
            "the guest's {memory} of memory are more than the {available} that this host has free"
        ));
    }
    let online = facts.cpu.online;
    if online > 0 && cpus > online {
        notes.push(format!(
            "the guest's {cpus} processors are more than the {online} of this host"
        ));
    }
}

/// Device names are one name space in QEMU, and node names of disks another.
pub(super) fn ids(machine: &Machine) -> Result<(), ResolveError> {
    let mut seen: Vec<(String, String)> = Vec::new();
    let mut claim = |id: String, what: &str| match seen.iter().find(|(other, _)| *other == id) {
        Some((_, first)) => Err(ResolveError::SameName {
            id,
            first: first.clone(),
            second: what.to_owned(),
        }),
        None => {
            seen.push((id, what.to_owned()));
            Ok(())
        }
    };
    let disks = machine.disks.iter().map(|disk| (&disk.id, "disk"));
    let nics = machine.nics.iter().map(|nic| (&nic.id, "network"));
    let shares = machine.shares.iter().map(|share| (&share.id, "share"));
    let controllers = machine.controllers.iter();
    let controllers = controllers.map(|controller| (&controller.id, "controller"));
    let host = machine.host_devices.iter().map(|device| {
        let kind = match device.kind {
            HostDeviceKind::Pci(_) => "PCI device",
            HostDeviceKind::Mdev(_) => "mediated device",
            HostDeviceKind::Usb(_) => "USB device",
        };
        (&device.id, kind)
    });
    let desktop = machine.desktop.ids();
    for (id, kind) in disks
        .chain(controllers)
        .chain(nics)
        .chain(shares)
        .chain(host)
        .chain(desktop)
    {
        let what = format!("{kind} `{id}`");
        if id.as_str().starts_with("mvm-") {
            return Err(ResolveError::ReservedName {
                what: kind.to_owned(),
                id: id.to_string(),
            });
        }
        claim(id.to_string(), &what)?;
    }
    // The nodes below a disk's own.
    for disk in &machine.disks {
        for suffix in ["-file", "-format", "-base", "-base-file"] {
            let twin = machine
                .disks
                .iter()
                .find(|other| other.id.as_str() == format!("{}{suffix}", disk.id));
            if let Some(twin) = twin {
                return Err(ResolveError::SameName {
                    id: twin.id.to_string(),
                    first: format!("disk `{}`", twin.id),
                    second: format!("a part of disk `{}`", disk.id),
                });
            }
        }
    }
    Ok(())
}

/// Finds a NUL in any text of the profile: no program can be given one.
pub(super) fn no_nul(layer: &Layer) -> Result<(), ResolveError> {
    // A layer is plain data; if it could not be written, there would be nothing to look through.
    let value = serde_json::to_value(layer).unwrap_or_default();
    match find_nul(&value, &mut Vec::new()) {
        Some(path) => Err(ResolveError::Nul(format!("`{path}`"))),
        None => Ok(()),
    }
}

fn find_nul(value: &serde_json::Value, path: &mut Vec<String>) -> Option<String> {
    use serde_json::Value;
    match value {
        Value::String(text) if text.contains('\0') => Some(path.join(".")),
        Value::Array(values) => values.iter().enumerate().find_map(|(index, value)| {
            path.push(index.to_string());
            let found = find_nul(value, path);
            path.pop();
            found
        }),
        Value::Object(values) => values.iter().find_map(|(key, value)| {
            path.push(key.clone());
            let found = find_nul(value, path);
            path.pop();
            found
        }),
        _ => None,
    }
}

/// The folders that relative paths of a profile are looked up in: the state directory's own, then
/// those that `mvm.toml` names.
pub fn image_folders(dirs: &Dirs, more: &[impl AsRef<Path>]) -> Vec<std::path::PathBuf> {
    std::iter::once(dirs.images())
        .chain(more.iter().map(|folder| folder.as_ref().to_owned()))
        .collect()
}
