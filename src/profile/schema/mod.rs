//! The language of profiles: what a TOML file may say.
//!
//! Every field is optional, because every file is a layer: what one leaves out another says. Named
//! tables (`[disk.system]`) let a later layer change one thing; alternatives are optional sub-tables
//! of which exactly one is set in the merged profile.

#[macro_use]
mod words;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::ids::Id;
use crate::units::Span;

pub use cpu::*;
pub use desktop::*;
pub use devices::*;
pub use display::*;
pub use hooks::*;
pub use memory::*;
pub use net::*;
pub use overrides::*;
pub use platform::*;
pub use ports::*;
pub use power::*;
pub use shares::*;
pub use storage::*;
pub use tpm::*;
pub use words::*;

/// A struct whose fields are all optional, and a table of a profile.
macro_rules! table {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case")]
        pub struct $name {
            $($(#[$inner])* #[serde(skip_serializing_if = "Option::is_none")] pub $field: Option<$kind>,)*
        }
    };
}

// Below the macro that they use.
mod cpu;
mod desktop;
mod devices;
mod display;
mod hooks;
mod memory;
mod net;
mod overrides;
mod platform;
mod ports;
mod power;
mod shares;
mod storage;
mod tpm;

/// What a layer and a variant have in common; a variant adds `when`. Written by macro because
/// serde's `flatten` would lose the position of an error.
macro_rules! layers {
    ($($(#[$inner:meta])* $field:ident: $kind:ty,)*) => {
        table! {
            /// One file of a profile, or the merged profile itself.
            Layer {
                /// One line for `mvm profile list`.
                summary: String,
                /// The profiles below this one, lowest first.
                extends: Vec<String>,
                /// Layers inside the profile that a choice switches on, in the order written.
                variant: BTreeMap<String, Variant>,
                /// Variants that are switched on by name, as `--variant` does.
                variants: Vec<String>,
                $($(#[$inner])* $field: $kind,)*
            }
        }
        table! {
            /// A layer that applies when its choices were made, or when `--variant` names it.
            Variant {
                /// The choices that switch it on; all of them must hold.
                when: When,
                $($(#[$inner])* $field: $kind,)*
            }
        }
    };
}

layers! {
    /// The board and how its code is run.
    machine: MachineTable,
    /// The processors.
    cpu: CpuTable,
    /// Where on the host its threads run.
    pin: PinTable,
    /// How the host schedules its threads.
    scheduler: SchedulerTable,
    /// What a Windows guest sees of Hyper-V.
    hyperv: HypervTable,
    /// The guest's clocks.
    clock: ClockTable,
    /// What the guest's firmware says of the machine.
    smbios: SmbiosTable,
    /// The memory.
    memory: MemoryTable,
    /// NUMA nodes that the guest sees, by name.
    numa: BTreeMap<Id, NumaTable>,
    /// A kernel started directly, without firmware.
    boot: BootTable,
    /// The firmware.
    firmware: FirmwareTable,
    /// Disks and CD-ROM drives, by name.
    disk: BTreeMap<Id, DiskTable>,
    /// Threads of QEMU that do the work of disks, by name.
    iothread: BTreeMap<Id, IothreadTable>,
    /// Controllers that disks sit on, by name.
    controller: BTreeMap<Id, ControllerTable>,
    /// Network cards, by name.
    network: BTreeMap<Id, NetworkTable>,
    /// Consoles, by name; `main` is the one that `mvm run` and `mvm console` attach to.
    console: BTreeMap<Id, ConsoleTable>,
    /// Virtio-serial channels, by name.
    channel: BTreeMap<Id, ChannelTable>,
    /// The QEMU guest agent's channel.
    agent: AgentTable,
    /// Folders of the host that the guest can mount, by name.
    share: BTreeMap<Id, ShareTable>,
    /// The random number generator.
    rng: RngTable,
    /// The memory balloon.
    balloon: BalloonTable,
    /// The watchdog.
    watchdog: WatchdogTable,
    /// The device by which the guest's kernel tells of its panic.
    panic: PanicTable,
    /// The TPM.
    tpm: TpmTable,
    /// The virtual socket to the host.
    vsock: VsockTable,
    /// An IOMMU that the guest sees.
    iommu: IommuTable,
    /// PCI functions of the host that the guest gets, by name.
    pci: BTreeMap<Id, PciTable>,
    /// USB devices of the host that the guest gets, by name.
    usb: BTreeMap<Id, UsbTable>,
    /// Mediated devices that the guest gets, by name.
    mdev: BTreeMap<Id, MdevTable>,
    /// The guest's GPU.
    gpu: GpuTable,
    /// Where the guest's pictures go.
    display: DisplayTable,
    /// What the guest draws on, by name.
    video: BTreeMap<Id, VideoTable>,
    /// Sound cards, by name.
    audio: BTreeMap<Id, AudioTable>,
    /// Keyboards, mice and tablets, by name.
    input: BTreeMap<Id, InputTable>,
    /// Memory that the guest shares with programs of the host, by name.
    shmem: BTreeMap<Id, ShmemTable>,
    /// USB devices of a SPICE viewer's host.
    usb_redirect: UsbRedirectTable,
    /// The USB controller.
    usb_controller: UsbControllerTable,
    /// How devices of the host reach the guest.
    vfio: VfioTable,
    /// Take devices although the host itself uses them, as `take-from-host` of each device does.
    take_from_host: bool,
    /// Room for devices that come while the guest runs.
    hotplug: HotplugTable,
    /// How the guest sleeps.
    power: PowerTable,
    /// How the guest is ended.
    lifecycle: LifecycleTable,
    /// Whether the guest starts with the host.
    autostart: AutostartTable,
    /// The rights of the guest's QEMU.
    security: SecurityTable,
    /// The QEMU that runs it.
    qemu: QemuTable,
    /// Trace events that QEMU logs (`-trace`), patterns as in `virtio*`.
    trace: Vec<String>,
    /// Programs that run at points of the guest's life, by name.
    hook: BTreeMap<Id, HookTable>,
    /// Variables of QEMU's environment.
    env: BTreeMap<String, String>,
    /// Properties of QEMU's devices, by the device's id: `[override.system] physical_block_size = 4096`.
    r#override: BTreeMap<String, BTreeMap<String, PropertyValue>>,
    /// Arguments handed to QEMU as they are, after all others.
    qemu_args: Vec<String>,
}

table! {
    /// The choices that a variant depends on. Each is compared with the flag of the same name, or with
    /// what the profile says where there was no flag.
    When {
        /// As in `--gpu`: `none` until the profile or the flag says otherwise.
        gpu: String,
        /// As in `--display`: `headless` until the profile or the flag says otherwise.
        display: String,
        /// As in `--firmware`: `bios`, `uefi` or `none`.
        firmware: String,
    }
}

table! {
    /// `[boot]`
    BootTable {
        /// The kernel image; a relative path is looked up in the image folders.
        kernel: String,
        /// The initial ramdisk, looked up likewise.
        initrd: String,
        /// The kernel's command line.
        append: String,
        /// Whether the firmware offers a menu of what to boot from. By default it does not.
        menu: bool,
        /// How long the menu waits for a key, as in `5s`. SeaBIOS shows the picture that long.
        menu_timeout: Span,
        /// A picture that SeaBIOS shows with its menu (JPEG or BMP); a relative path is looked up in the image
        /// folders.
        splash: String,
        /// Whether only what has a place in the boot order is booted from. On by default.
        strict: bool,
    }
}

table! {
    /// `[firmware]`
    FirmwareTable {
        /// Which kind. By default the machine's own (SeaBIOS on x86_64); `none` on `virt` with a kernel.
        r#type: FirmwareWord,
        /// An image of your own instead of the one that the host's descriptors name.
        file: String,
        /// The template of the variable store that belongs to `file`; copied for each guest.
        nvram_template: String,
        /// Where the guest's variable store is, an absolute path. By default with the guest's state. One that is
        /// there is used; else it is made from the template.
        nvram: String,
        /// UEFI starts signed software only: a firmware with enrolled keys is taken, and variables that the guest's
        /// kernel cannot change where the board has System Management Mode. By default such a firmware is not taken.
        secure_boot: bool,
        /// Whether `file` guards its variables by System Management Mode. By default so with `secure-boot` on q35.
        smm: bool,
    }
}

table! {
    /// An empty table: `none = {}`.
    NoDevice {}
}

table! {
    /// `[agent]`
    AgentTable {
        /// Whether the guest has the agent's channel, `org.qemu.guest_agent.0`. By default so where the table
        /// is there.
        enabled: bool,
    }
}

table! {
    /// `[rng]`: virtio-rng.
    RngTable {
        /// Whether the guest has one. By default so where the table is there.
        enabled: bool,
        /// The host's source. By default `/dev/urandom`.
        source: String,
    }
}

table! {
    /// `[watchdog]`
    WatchdogTable {
        /// Whether the guest has one. By default so where the table is there.
        enabled: bool,
        /// The device. By default `i6300esb`.
        model: WatchdogModel,
        /// What QEMU does when the guest does not feed it. By default `reset`.
        action: WatchdogAction,
    }
}

table! {
    /// `[panic]`: pvpanic, by which a panic of the guest's kernel is seen.
    PanicTable {
        /// Whether the guest has one. By default so where the table is there, and where `lifecycle.on-crash`
        /// is `restart` or `preserve`.
        enabled: bool,
    }
}

table! {
    /// `[vsock]`
    VsockTable {
        /// Whether the guest has one. By default so where the table is there.
        enabled: bool,
        /// The guest's context id, 3 or more. By default one derived from the guest's name.
        cid: u32,
    }
}

table! {
    /// `[iommu]`
    IommuTable {
        /// Which one the guest sees.
        model: IommuModel,
        /// Whether the guest tells of each change of its tables (`intel`). By default so where it gets devices of the
        /// host, which need it.
        caching_mode: bool,
        /// Whether devices keep translations of their own, as vhost does (`intel`). By default they do not.
        device_iotlb: bool,
        /// How wide the addresses of devices are: 39 or 48 (`intel`).
        aw_bits: u8,
        /// Whether it translates interrupts too (`intel`). By default where QEMU can. Under KVM, `true` sets
        /// `machine.irqchip` to `split`.
        interrupt_remapping: bool,
    }
}

table! {
    /// `[lifecycle]`
    LifecycleTable {
        /// How long `mvm stop` and a SIGTERM to the supervisor wait for the guest to shut down.
        /// By default `60s`.
        stop_timeout: Span,
        /// When a guest that has ended is started anew. By default `never`. The three keys below say it more
        /// finely, each by itself. `mvm stop`, `mvm kill` and a signal are never followed by a new start.
        restart: Restart,
        /// How many new starts there are in a row, 1 s to 60 s apart, before the guest is given up; a run of
        /// five minutes begins a new row. By default 10.
        restart_limit: u32,
        /// What follows when the guest shuts itself down. By default `stop`, with `restart = "always"`
        /// `restart`.
        on_poweroff: OnPoweroff,
        /// What follows when the guest reboots, or is reset. By default `reset`.
        on_reboot: OnReboot,
        /// What follows when QEMU or the guest's kernel crashes. By default `stop`, with `restart` other than
        /// `never` `restart`.
        on_crash: OnCrash,
    }
}

table! {
    /// `[autostart]`: for machine files; what starts guests with the host is `mvm unit --autostart`.
    AutostartTable {
        /// Whether the guest starts with the host. By default so where the table is there.
        enabled: bool,
        /// Guests of a lower number start first and are stopped last; those of the same number start in the order
        /// of their names and are stopped together. By default 100.
        order: u32,
        /// How long to wait before it is started, once the one before it has been. By default not at all.
        delay: Span,
    }
}

table! {
    /// `[security]`
    SecurityTable {
        /// The user of the host as whom QEMU runs, where mvm is root: it opens nothing that this user could not
        /// open, but for what mvm hands to it. By default the one that `mvm.toml` names, else the user who runs
        /// mvm.
        user: String,
    }
}

table! {
    /// `[qemu]`
    QemuTable {
        /// The program, instead of the one found in PATH.
        binary: String,
        /// QEMU's seccomp filter (`-sandbox on`). On by default.
        sandbox: bool,
    }
}
