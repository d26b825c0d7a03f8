//! The names of QEMU's device types, in one place: the command line uses them, and the check against
//! what this QEMU has names the same.

use super::desktop::video::GPU_ID;
use super::{BoardKind, Bus, HostDeviceKind, Iommu, Machine};
use crate::profile::schema::{
    ControllerModel, DiskBus, Media, NicModel, TpmModel, UsbModel, WatchdogModel,
};

/// The kinds of virtio device that a guest has at most one of, or that a table gives it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Virtio {
    /// A disk.
    Blk,
    /// A SCSI controller.
    Scsi,
    /// A network card.
    Net,
    /// The controller of consoles and channels.
    Serial,
    /// The random number generator.
    Rng,
    /// The memory balloon.
    Balloon,
    /// The virtual socket.
    Vsock,
    /// A disk of another program's.
    VhostUserBlk,
    /// A 9p share.
    Share,
    /// A share that another program serves.
    Virtiofs,
    /// The IOMMU.
    Iommu,
}

/// The device type on that bus.
pub const fn virtio(kind: Virtio, bus: Bus) -> &'static str {
    match (kind, bus) {
        (Virtio::Blk, Bus::Mmio) => "virtio-blk-device",
        (Virtio::Blk, _) => "virtio-blk-pci",
        (Virtio::VhostUserBlk, Bus::Mmio) => "vhost-user-blk-device",
        (Virtio::VhostUserBlk, _) => "vhost-user-blk-pci",
        (Virtio::Scsi, Bus::Mmio) => "virtio-scsi-device",
        (Virtio::Scsi, _) => "virtio-scsi-pci",
        (Virtio::Net, Bus::Mmio) => "virtio-net-device",
        (Virtio::Net, _) => "virtio-net-pci",
        (Virtio::Serial, Bus::Mmio) => "virtio-serial-device",
        (Virtio::Serial, _) => "virtio-serial-pci",
        (Virtio::Rng, Bus::Mmio) => "virtio-rng-device",
        (Virtio::Rng, _) => "virtio-rng-pci",
        (Virtio::Balloon, Bus::Mmio) => "virtio-balloon-device",
        (Virtio::Balloon, _) => "virtio-balloon-pci",
        (Virtio::Vsock, Bus::Mmio) => "vhost-vsock-device",
        (Virtio::Vsock, _) => "vhost-vsock-pci",
        (Virtio::Share, Bus::Mmio) => "virtio-9p-device",
        (Virtio::Share, _) => "virtio-9p-pci",
        (Virtio::Virtiofs, Bus::Mmio) => "vhost-user-fs-device",
        (Virtio::Virtiofs, _) => "vhost-user-fs-pci",
        (Virtio::Iommu, _) => "virtio-iommu-pci",
    }
}

/// A PCI function of the host, and a mediated device.
pub const VFIO: &str = "vfio-pci";
/// The same for one that firmware draws on.
pub const VFIO_RAMFB: &str = "vfio-pci-nohotplug";
/// A USB device of the host.
pub const USB_HOST: &str = "usb-host";
/// The object that stands for `/dev/iommu`.
pub const IOMMUFD: &str = "iommufd";

/// The bridge to conventional PCI.
pub const fn bridge(board: BoardKind) -> &'static str {
    match board.bus() {
        Bus::Pcie => "pcie-pci-bridge",
        Bus::Pci | Bus::Mmio => "pci-bridge",
    }
}

/// The USB controller.
pub const fn usb(model: UsbModel) -> &'static str {
    match model {
        UsbModel::Xhci => "qemu-xhci",
        UsbModel::NecXhci => "nec-usb-xhci",
        UsbModel::Ehci => "usb-ehci",
        UsbModel::Uhci => "piix3-usb-uhci",
    }
}

/// Shared memory.
pub const SHMEM: &str = "ivshmem-plain";
/// A port for devices of a SPICE viewer's host.
pub const USB_REDIRECT: &str = "usb-redir";

/// The port that a PCI Express device sits behind.
pub const ROOT_PORT: &str = "pcie-root-port";
/// The AHCI controller of boards without one of their own.
pub const AHCI: &str = "ich9-ahci";
/// VT-d.
pub const INTEL_IOMMU: &str = "intel-iommu";
/// A USB mass storage device whose SCSI device is a device of its own.
pub const USB_SCSI: &str = "usb-bot";
/// A port for bytes.
pub const SERIAL_PORT: &str = "virtserialport";
/// A port with a console.
pub const CONSOLE_PORT: &str = "virtconsole";
/// A further UART.
pub const ISA_SERIAL: &str = "isa-serial";
/// The object that reads the host's random numbers.
pub const RNG_SOURCE: &str = "rng-random";

/// A network card.
pub const fn nic(model: NicModel, board: BoardKind) -> &'static str {
    match (model, board) {
        (NicModel::Virtio, _) => virtio(Virtio::Net, board.bus()),
        (NicModel::E1000, BoardKind::Pc) => "e1000",
        (NicModel::E1000 | NicModel::E1000e, _) => "e1000e",
        (NicModel::E100082540em, _) => "e1000",
        (NicModel::Ne2k, _) => "ne2k_pci",
        // QEMU calls them as profiles do.
        _ => model.as_str(),
    }
}

/// The floppy controller of boards without one of their own.
pub const FLOPPY_CONTROLLER: &str = "isa-fdc";
/// The object that runs a thread for disks.
pub const IOTHREAD: &str = "iothread";
/// The object that limits what goes through it.
pub const THROTTLE: &str = "throttle-group";

/// A controller of disks.
pub const fn controller(model: ControllerModel, bus: Bus) -> &'static str {
    match model {
        ControllerModel::Virtio => virtio(Virtio::Scsi, bus),
        ControllerModel::Lsi53c895a => "lsi53c895a",
        ControllerModel::Am53c974 => "am53c974",
        ControllerModel::Mptsas1068 => "mptsas1068",
        ControllerModel::Megasas => "megasas",
        ControllerModel::Pvscsi => "pvscsi",
    }
}

/// A disk or drive.
pub const fn disk(bus: DiskBus, media: Media, board: BoardKind) -> &'static str {
    match (bus, media) {
        (DiskBus::Virtio, _) => virtio(Virtio::Blk, board.bus()),
        (DiskBus::Nvme, _) => "nvme",
        (DiskBus::Scsi, Media::Disk) => "scsi-hd",
        (DiskBus::Scsi | DiskBus::Usb, Media::Cdrom) => "scsi-cd",
        (DiskBus::Usb, Media::Disk) => "usb-storage",
        (DiskBus::Sata | DiskBus::Ide, Media::Disk) => "ide-hd",
        (DiskBus::Sata | DiskBus::Ide, Media::Cdrom) => "ide-cd",
        (DiskBus::Floppy, _) => "floppy",
    }
}

/// A watchdog.
pub const fn watchdog(model: WatchdogModel) -> &'static str {
    match model {
        WatchdogModel::I6300esb => "i6300esb",
    }
}

/// What a guest's kernel tells of its panic to. Windows and old Linux know the one on the ISA bus alone.
pub const fn panic(board: BoardKind) -> &'static str {
    match board {
        BoardKind::Virt => "pvpanic-pci",
        BoardKind::Q35 | BoardKind::Pc | BoardKind::Microvm => "pvpanic",
    }
}

/// A TPM.
pub const fn tpm(model: TpmModel, board: BoardKind) -> &'static str {
    match (model, board) {
        (TpmModel::Crb, _) => "tpm-crb",
        (TpmModel::Tis, BoardKind::Virt) => "tpm-tis-device",
        (TpmModel::Tis, _) => "tpm-tis",
    }
}

/// A device type that a machine needs, and what for.
pub(crate) struct Needed {
    pub(crate) driver: &'static str,
    pub(crate) what: String,
}

/// Every device type that the machine needs, each at least once.
pub(crate) fn needed(machine: &Machine) -> Vec<Needed> {
    let board = machine.board.kind;
    let bus = board.bus();
    let usb = self::usb(machine.desktop.usb.model);
    let mut needed = Vec::new();
    let mut need = |driver, what: String| needed.push(Needed { driver, what });
    for disk in &machine.disks {
        let what = format!("disk `{}`", disk.id);
        if disk.options.vhost_user.is_some() {
            need(virtio(Virtio::VhostUserBlk, bus), what);
            continue;
        }
        need(self::disk(disk.bus, disk.media, board), what.clone());
        match (disk.bus, disk.media) {
            (DiskBus::Scsi, _) if disk.options.controller.is_none() => {
                need(virtio(Virtio::Scsi, bus), what);
            }
            (DiskBus::Floppy, _) if board != BoardKind::Pc => need(FLOPPY_CONTROLLER, what),
            (DiskBus::Sata, _) if board != BoardKind::Q35 => need(AHCI, what),
            (DiskBus::Usb, Media::Disk) => need(usb, what),
            (DiskBus::Usb, Media::Cdrom) => {
                need(usb, what.clone());
                need(USB_SCSI, what);
            }
            _ => {}
        }
    }
    for controller in &machine.controllers {
        let what = format!("controller `{}`", controller.id);
        need(self::controller(controller.model, bus), what);
    }
    for nic in &machine.nics {
        need(self::nic(nic.model, board), format!("network `{}`", nic.id));
    }
    for share in &machine.shares {
        let kind = match share.virtiofs {
            Some(_) => Virtio::Virtiofs,
            None => Virtio::Share,
        };
        need(virtio(kind, bus), format!("share `{}`", share.id));
    }
    if machine.has_serial_controller() {
        let what = "a virtio console or channel".to_owned();
        need(virtio(Virtio::Serial, bus), what);
    }
    for console in machine.consoles.iter().filter(|console| console.virtio) {
        need(CONSOLE_PORT, format!("console `{}`", console.id));
    }
    for console in machine
        .consoles
        .iter()
        .filter(|console| console.isa.is_some())
    {
        need(ISA_SERIAL, format!("console `{}`", console.id));
    }
    let spice = machine.desktop.has_agent() || machine.desktop.has_webdav();
    if machine.agent || !machine.channels.is_empty() || spice {
        need(SERIAL_PORT, "a channel".to_owned());
    }
    if machine.rng.is_some() {
        need(virtio(Virtio::Rng, bus), "`[rng]`".to_owned());
    }
    if machine.balloon {
        need(virtio(Virtio::Balloon, bus), "`[balloon]`".to_owned());
    }
    if let Some(watchdog) = &machine.watchdog {
        need(self::watchdog(watchdog.model), "`[watchdog]`".to_owned());
    }
    if machine.panic {
        need(self::panic(board), "`[panic]`".to_owned());
    }
    if let Some(tpm) = &machine.tpm {
        need(self::tpm(tpm.model, board), "`[tpm]`".to_owned());
    }
    if machine.vsock.is_some() {
        need(virtio(Virtio::Vsock, bus), "`[vsock]`".to_owned());
    }
    if matches!(machine.board.iommu, Some(Iommu::Intel(_))) {
        need(INTEL_IOMMU, "`[iommu]`".to_owned());
    }
    if machine.board.virtio_iommu {
        need(virtio(Virtio::Iommu, bus), "`[iommu]`".to_owned());
    }
    for device in &machine.host_devices {
        let what = format!("`{}`", device.key());
        match device.kind {
            HostDeviceKind::Pci(_) | HostDeviceKind::Mdev(_) => {
                need(device.guest.driver(), what);
            }
            HostDeviceKind::Usb(_) => {
                need(usb, what.clone());
                need(USB_HOST, what);
            }
        }
    }
    let desktop = &machine.desktop;
    for video in &desktop.video {
        let what = match video.id.as_str() {
            GPU_ID => "`gpu.virtio`".to_owned(),
            id => format!("video `{id}`"),
        };
        need(video.driver(board), what);
    }
    for audio in &desktop.audio {
        let what = || format!("audio `{}`", audio.id);
        need(audio.driver(), what());
        if let Some(codec) = audio.codec() {
            need(codec, what());
        }
    }
    for input in &desktop.inputs {
        if let Some(driver) = input.driver(board) {
            need(driver, format!("input `{}`", input.id));
        }
    }
    for shmem in &desktop.shmem {
        need(SHMEM, format!("shmem `{}`", shmem.id));
    }
    if desktop.usb_redirects > 0 {
        need(USB_REDIRECT, "`[usb-redirect]`".to_owned());
    }
    if super::slots::has_usb(machine) {
        need(usb, "a USB device or `[usb-controller]`".to_owned());
    }
    if desktop.has_bridge() || super::slots::Slots::of(machine).keeps_bridge() {
        need(
            bridge(board),
            "sound, shared memory and virtio input".to_owned(),
        );
    }
    if super::slots::Slots::of(machine)
        .root_ports()
        .next()
        .is_some()
    {
        need(ROOT_PORT, "the ports of PCI Express devices".to_owned());
    }
    needed
}
