//! The words that some keys take.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An enum of words.
macro_rules! words {
    ($(#[$outer:meta])* $name:ident { $($(#[$inner:meta])* $word:ident = $text:literal,)* }) => {
        $(#[$outer])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        pub enum $name { $($(#[$inner])* #[serde(rename = $text)] $word,)* }

        impl $name {
            /// Every word, in the order of the reference.
            pub const ALL: &'static [Self] = &[$(Self::$word,)*];

            /// The word as profiles spell it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$word => $text,)* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// `machine.accel`
    AccelWord {
        /// KVM where the host's is healthy, else TCG, with the reason told.
        Auto = "auto",
        /// KVM or nothing.
        Kvm = "kvm",
        /// QEMU's own translation.
        Tcg = "tcg",
    }
}

words! {
    /// `machine.gic`
    Gic {
        /// GICv2: at most 8 processors.
        V2 = "2",
        /// GICv3.
        V3 = "3",
        /// The host's own under KVM, the newest under TCG.
        Max = "max",
    }
}

words! {
    /// `firmware.type`
    FirmwareWord {
        /// The machine's built-in BIOS, or the one in `file`.
        Bios = "bios",
        /// UEFI, found through the host's firmware descriptors, with a variable store of the guest's own.
        Uefi = "uefi",
        /// None: the kernel is started directly.
        None = "none",
    }
}

words! {
    /// `disk.NAME.file.format`
    DiskFormat {
        /// Bytes as they are.
        Raw = "raw",
        /// QEMU's copy-on-write format.
        Qcow2 = "qcow2",
    }
}

words! {
    /// `disk.NAME.bus`
    DiskBus {
        /// virtio-blk.
        Virtio = "virtio",
        /// A disk of a virtio-scsi controller.
        Scsi = "scsi",
        /// AHCI.
        Sata = "sata",
        /// IDE, on `pc` only.
        Ide = "ide",
        /// NVMe.
        Nvme = "nvme",
        /// USB mass storage.
        Usb = "usb",
        /// A floppy drive, on x86_64 only.
        Floppy = "floppy",
    }
}

words! {
    /// `disk.NAME.detect-zeroes`
    DetectZeroes {
        /// They are written.
        Off = "off",
        /// They are noted as zeroes where the image's format can.
        On = "on",
        /// They are freed as discards are; needs `discard`.
        Unmap = "unmap",
    }
}

words! {
    /// `disk.NAME.rerror`
    ReadError {
        /// The guest is not told, and reads what was there.
        Ignore = "ignore",
        /// The guest is told.
        Report = "report",
        /// The guest is paused, and repeats the request when it is resumed.
        Stop = "stop",
    }
}

words! {
    /// `disk.NAME.werror`
    WriteError {
        /// The guest is not told.
        Ignore = "ignore",
        /// The guest is told.
        Report = "report",
        /// The guest is paused, and repeats the request when it is resumed.
        Stop = "stop",
        /// `stop` where the host's disk is full, else `report`.
        Enospc = "enospc",
    }
}

words! {
    /// `controller.NAME.type`
    ControllerKind {
        /// SCSI disks and drives.
        Scsi = "scsi",
    }
}

words! {
    /// `controller.NAME.model`
    ControllerModel {
        /// virtio-scsi.
        Virtio = "virtio",
        /// LSI 53C895A.
        Lsi53c895a = "lsi53c895a",
        /// AMD 53C974.
        Am53c974 = "am53c974",
        /// LSI SAS1068.
        Mptsas1068 = "mptsas1068",
        /// LSI MegaRAID SAS 8708.
        Megasas = "megasas",
        /// VMware's paravirtual one.
        Pvscsi = "pvscsi",
    }
}

words! {
    /// `disk.NAME.media`
    Media {
        /// A disk.
        Disk = "disk",
        /// A CD-ROM drive.
        Cdrom = "cdrom",
    }
}

words! {
    /// `disk.NAME.cache`
    Cache {
        /// Past the host's page cache (O_DIRECT).
        None = "none",
        /// Through the page cache; the guest's flushes are obeyed.
        Writeback = "writeback",
        /// Every write is flushed.
        Writethrough = "writethrough",
        /// Past the page cache, every write flushed.
        Directsync = "directsync",
        /// The guest's flushes are ignored.
        Unsafe = "unsafe",
    }
}

words! {
    /// `disk.NAME.aio`
    Aio {
        /// A pool of threads.
        Threads = "threads",
        /// Linux AIO; needs cache `none` or `directsync`.
        Native = "native",
        /// io_uring.
        IoUring = "io_uring",
    }
}

words! {
    /// `network.NAME.model`
    NicModel {
        /// virtio-net.
        Virtio = "virtio",
        /// Intel 82540EM (PCI) or, on q35 and virt, 82574L.
        E1000 = "e1000",
        /// Intel 82574L (PCI Express).
        E1000e = "e1000e",
        /// Intel 82540EM on every board.
        E100082540em = "e1000-82540em",
        /// Intel 82576.
        Igb = "igb",
        /// VMware's third.
        Vmxnet3 = "vmxnet3",
        /// Realtek 8139.
        Rtl8139 = "rtl8139",
        /// NE2000 on PCI.
        Ne2k = "ne2k",
        /// AMD PCnet.
        Pcnet = "pcnet",
        /// DEC 21143.
        Tulip = "tulip",
        /// Intel 82550.
        I82550 = "i82550",
        /// Intel 82551.
        I82551 = "i82551",
        /// Intel 82557A.
        I82557a = "i82557a",
        /// Intel 82557B.
        I82557b = "i82557b",
        /// Intel 82557C.
        I82557c = "i82557c",
        /// Intel 82558A.
        I82558a = "i82558a",
        /// Intel 82558B.
        I82558b = "i82558b",
        /// Intel 82559A.
        I82559a = "i82559a",
        /// Intel 82559B.
        I82559b = "i82559b",
        /// Intel 82559C.
        I82559c = "i82559c",
        /// Intel 82559ER.
        I82559er = "i82559er",
        /// Intel 82562.
        I82562 = "i82562",
        /// Intel 82801.
        I82801 = "i82801",
    }
}

words! {
    /// `console.NAME.device`
    ConsoleDevice {
        /// The board's UART: `ttyS0` on x86_64, `ttyAMA0` on aarch64.
        Serial = "serial",
        /// A virtio console: `hvc0`.
        Virtio = "virtio",
        /// A further UART on the ISA bus of `pc` and `q35`: `ttyS1` to `ttyS3`.
        Isa = "isa",
        /// No console: takes away one that a lower layer gave.
        None = "none",
    }
}

words! {
    /// `backend` of a console or channel
    ConsoleBackend {
        /// `mvm console` with any number of readers; a channel's own socket.
        Mvm = "mvm",
        /// A pseudo-terminal of the host; `mvm show` tells its path.
        Pty = "pty",
        /// Nothing reads it, and nothing comes from it.
        Null = "null",
    }
}

words! {
    /// `share.NAME.security-model`
    SecurityModel {
        /// In extended attributes; the files belong to QEMU's user.
        MappedXattr = "mapped-xattr",
        /// In hidden files beside them.
        MappedFile = "mapped-file",
        /// As on the host; needs a QEMU that runs as root.
        Passthrough = "passthrough",
        /// As on the host, failures of changing owners ignored.
        None = "none",
    }
}

words! {
    /// `watchdog.model`
    WatchdogModel {
        /// Intel 6300ESB, a PCI device.
        I6300esb = "i6300esb",
    }
}

words! {
    /// `watchdog.action`, QEMU's `-action watchdog=`
    WatchdogAction {
        /// The guest starts anew.
        Reset = "reset",
        /// The guest is asked to shut down.
        Shutdown = "shutdown",
        /// QEMU ends.
        Poweroff = "poweroff",
        /// The guest is paused.
        Pause = "pause",
        /// The guest gets a non-maskable interrupt.
        InjectNmi = "inject-nmi",
        /// QEMU says so in its log.
        Debug = "debug",
        /// The event is all.
        None = "none",
    }
}

words! {
    /// `lifecycle.restart`
    Restart {
        /// A guest that has ended stays so.
        Never = "never",
        /// It is started anew when QEMU or the guest's kernel crashed: `on-crash = "restart"`.
        OnCrash = "on-crash",
        /// It is started anew when it shut itself down, too: `on-poweroff = "restart"` as well.
        Always = "always",
    }
}

words! {
    /// `lifecycle.on-poweroff`
    OnPoweroff {
        /// QEMU ends, and the host gets back what it gave.
        Stop = "stop",
        /// The same, and then the guest is started anew.
        Restart = "restart",
        /// QEMU stays, the guest's processors stopped, its memory and devices as they were.
        Preserve = "preserve",
    }
}

words! {
    /// `lifecycle.on-reboot`
    OnReboot {
        /// The board is reset within the same QEMU, as on a real one.
        Reset = "reset",
        /// QEMU ends, the host gets back what it gave, and the guest is started anew.
        Restart = "restart",
        /// QEMU ends: for installers that end by a reboot.
        Stop = "stop",
    }
}

words! {
    /// `lifecycle.on-crash`
    OnCrash {
        /// QEMU ends, and the host gets back what it gave.
        Stop = "stop",
        /// The same, and then the guest is started anew.
        Restart = "restart",
        /// After a panic of its kernel the guest is paused, its memory and devices as they were. A QEMU
        /// that crashed leaves nothing to preserve.
        Preserve = "preserve",
    }
}

words! {
    /// `iommu.model`
    IommuModel {
        /// None.
        None = "none",
        /// virtio-iommu, on q35 and virt.
        Virtio = "virtio",
        /// Intel's VT-d, on q35.
        Intel = "intel",
        /// Arm's SMMUv3, on virt.
        Smmuv3 = "smmuv3",
    }
}
