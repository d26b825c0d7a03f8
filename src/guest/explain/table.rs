//! What people meet. An entry stands before another whose pattern it would match too.

use super::{Entry, Found};
use crate::error::ExitCode::{Failed, Host, Profile};

fn line(found: &Found<'_>) -> String {
    found.line.to_owned()
}

pub(super) const TABLE: &[Entry] = &[
    // These are mvm's own words about QEMU's threads.
    Entry {
        id: "pinned",
        patterns: &[
            " cannot be moved to the host's CPUs *",
            " is to run on the host's CPUs *",
        ],
        code: Host,
        cause: line,
        fix: |_| {
            "a control group may keep CPUs from it (`AllowedCPUs=` of a unit, cpuset): the file \
             `cpuset.cpus.effective` of the group that /proc/self/cgroup names says so"
                .to_owned()
        },
    },
    Entry {
        id: "scheduled",
        patterns: &[" cannot be scheduled as *"],
        code: Host,
        cause: line,
        fix: |_| {
            "its control group may have no share of real time (`cpu.rt_runtime_us`), or the right to it was \
             lost since the guest was planned"
                .to_owned()
        },
    },
    Entry {
        id: "cpu-feature",
        patterns: &["the guest's processor has it off"],
        code: Host,
        cause: line,
        fix: |_| {
            "the host's processor, or TCG, does not have it: `mvm log NAME --qemu` shows QEMU's warning"
                .to_owned()
        },
    },
    Entry {
        id: "image-locked",
        patterns: &["Is another process using the image [*]?"],
        code: Failed,
        cause: |found| match found.holder(found.what) {
            Some(holder) => format!("the image {} is in use by {holder}", found.what),
            None => format!("the image {} is in use by another process", found.what),
        },
        fix: |_| {
            "end that one first, give each guest an image of its own, or make this disk `ephemeral`"
                .to_owned()
        },
    },
    Entry {
        id: "kvm-permission",
        patterns: &["Could not access KVM kernel module: Permission denied"],
        code: Host,
        cause: |_| "this user may not use /dev/kvm".to_owned(),
        fix: |_| {
            "join its group (`sudo usermod -aG kvm $USER`, then log in anew), or let `machine.accel = \"tcg\"` do without".to_owned()
        },
    },
    Entry {
        id: "kvm-missing",
        patterns: &[
            "Could not access KVM kernel module: *",
            "failed to initialize kvm: *",
            "invalid accelerator kvm",
        ],
        code: Host,
        cause: |found| format!("KVM cannot be used: {}", found.line),
        fix: |_| {
            "`mvm doctor` says what is missing; `machine.accel = \"tcg\"` does without KVM"
                .to_owned()
        },
    },
    Entry {
        id: "hugepages",
        patterns: &[
            "unable to map backing store for guest RAM: Cannot allocate memory",
            "os_mem_prealloc: *",
            "qemu_prealloc_mem: *",
            "preallocating memory failed: *",
        ],
        code: Host,
        cause: |_| "the host has too few free hugepages for the guest's memory".to_owned(),
        fix: |_| {
            "reserve more (`/proc/sys/vm/nr_hugepages`), or give the guest less memory (`memory.size`)".to_owned()
        },
    },
    Entry {
        id: "memory",
        patterns: &[
            "cannot set up guest memory '*': Cannot allocate memory",
            "cannot set up guest memory '*'",
            "bytes for jit buffer: Cannot allocate memory",
        ],
        code: Host,
        cause: |_| "the host has not enough memory for the guest's".to_owned(),
        fix: |_| {
            "give the guest less (`memory.size`, or `--set memory.size=1G`), or end other guests"
                .to_owned()
        },
    },
    Entry {
        id: "port",
        patterns: &["Could not set up host forwarding rule '*'"],
        code: Failed,
        cause: |found| {
            format!(
                "a port of the host that the guest's network forwards is taken: {}",
                found.what
            )
        },
        fix: |_| {
            "forward another port of the host, or end the process that listens there (`ss -ltnup`)"
                .to_owned()
        },
    },
    Entry {
        id: "port-display",
        patterns: &[
            "Failed to find an available port: Address already in use",
            "Failed to bind socket: Address already in use",
            "reds_init_socket: binding socket to * failed",
        ],
        code: Failed,
        cause: |_| "a port that QEMU should listen on is taken".to_owned(),
        fix: |_| {
            "give the guest another one, or end the process that listens there (`ss -ltnp`)"
                .to_owned()
        },
    },
    Entry {
        id: "udmabuf",
        patterns: &["cannot enable blob resources without udmabuf"],
        code: Host,
        cause: |_| "the guest's pictures cannot be shared: /dev/udmabuf cannot be used".to_owned(),
        fix: |_| {
            "`sudo modprobe udmabuf`, see that this user may open /dev/udmabuf, or leave `blob` out of [video]".to_owned()
        },
    },
    Entry {
        id: "render-node",
        patterns: &[
            "egl: no drm render node available",
            "egl: render node init failed",
        ],
        code: Host,
        cause: |_| "the host has no GPU that QEMU can compute pictures on".to_owned(),
        fix: |_| {
            "it is /dev/dri/renderD128 and on, for the group `render`; displays without `gl` do without".to_owned()
        },
    },
    Entry {
        id: "firmware",
        patterns: &["could not load PC BIOS '*'", "Could not find ROM image '*'"],
        code: Host,
        cause: |found| format!("the firmware {} is not there or not readable", found.what),
        fix: |_| {
            "install it (Debian: seabios, ovmf, qemu-efi-aarch64), or name another in [firmware]"
                .to_owned()
        },
    },
    Entry {
        id: "firmware-size",
        patterns: &["system firmware block device * has invalid size"],
        code: Profile,
        cause: line,
        fix: |_| {
            "the file is no firmware image for this machine, or its format is given wrongly"
                .to_owned()
        },
    },
    Entry {
        id: "module",
        patterns: &["qemu: module * not found, do you want to install * package?"],
        code: Host,
        cause: |found| format!("this QEMU lacks its module {}", found.what),
        fix: |found| {
            let package = super::capture(found.line, "install * package?").unwrap_or("that has it");
            format!("install the package {package}")
        },
    },
    Entry {
        id: "module-display",
        patterns: &[
            "Display '*' is not available",
            "-display *: Parameter 'type' does not accept value",
        ],
        code: Host,
        cause: |found| format!("this QEMU has no display of the kind `{}`", found.what),
        fix: |_| {
            "install QEMU's display modules (Debian: qemu-system-gui, qemu-system-modules-spice), or choose another display".to_owned()
        },
    },
    Entry {
        id: "no-display",
        patterns: &[
            "gtk initialization failed",
            "Could not initialize SDL",
            "egl: no drm render node available",
            "opengl is not available",
        ],
        code: Host,
        cause: |found| format!("there is no screen that QEMU could draw on: {}", found.line),
        fix: |_| "run mvm in a graphical session, or without a local display".to_owned(),
    },
    Entry {
        id: "machine-type",
        patterns: &["unsupported machine type"],
        code: Host,
        cause: |_| "this QEMU has no machine type of that name".to_owned(),
        fix: |_| {
            "`qemu-system-ARCH -machine help` lists them; `machine.type = \"q35\"` or `\"virt\"` is the newest of its kind".to_owned()
        },
    },
    Entry {
        id: "device",
        patterns: &[
            "'*' is not a valid device model name",
            "Device '*' not found",
        ],
        code: Host,
        cause: |found| format!("this QEMU has no device `{}`", found.what),
        fix: |_| {
            "`qemu-system-ARCH -device help` lists them; a newer QEMU or another of its packages may have it".to_owned()
        },
    },
    Entry {
        id: "cpu-host",
        patterns: &["CPU model 'host' requires KVM"],
        code: Profile,
        cause: |_| "the CPU model `host` needs KVM, which this guest does not use".to_owned(),
        fix: |_| "`cpu.model = \"auto\"` takes the best one that there is".to_owned(),
    },
    Entry {
        id: "cpu-model",
        patterns: &[
            "unable to find CPU model '*'",
            "* is not a valid CPU model",
            "Invalid CPU type",
        ],
        code: Host,
        cause: |found| format!("this QEMU has no such CPU model: {}", found.line),
        fix: |_| {
            "`qemu-system-ARCH -cpu help` lists them; `cpu.model = \"auto\"` takes the best one that there is".to_owned()
        },
    },
    Entry {
        id: "cpu-count",
        patterns: &[
            "Invalid SMP CPUs *",
            "exceeds max CPUs supported by machine *",
        ],
        code: Profile,
        cause: line,
        fix: |_| {
            "give it fewer (`cpu.count`); on `virt` a GICv3 (`machine.gic = \"3\"`) takes more than 8".to_owned()
        },
    },
    Entry {
        id: "property",
        patterns: &["Property '*' not found"],
        code: Host,
        cause: |found| format!("this QEMU does not know the property {}", found.what),
        fix: |_| "a newer QEMU may; leave it out of the profile otherwise".to_owned(),
    },
    Entry {
        id: "option",
        patterns: &[": -*: invalid option"],
        code: Profile,
        cause: |found| format!("this QEMU does not know the option -{}", found.what),
        fix: |_| "see `qemu-args` in the profile".to_owned(),
    },
    Entry {
        id: "vsock-missing",
        patterns: &["vhost-vsock: failed to open vhost device: *"],
        code: Host,
        cause: |found| {
            format!(
                "the host's virtual sockets cannot be used: /dev/vhost-vsock: {}",
                found.what
            )
        },
        fix: |_| {
            "`sudo modprobe vhost_vsock`, and see that this user may open the device".to_owned()
        },
    },
    Entry {
        id: "vsock-cid",
        patterns: &["unable to set guest cid: *"],
        code: Failed,
        cause: |_| "the guest's vsock context id is in use".to_owned(),
        fix: |_| "leave out `cid` in [vsock]: each guest then gets one of its own".to_owned(),
    },
    Entry {
        id: "tap-busy",
        patterns: &[
            "could not configure /dev/net/tun (*): Device or resource busy",
            "TUNSETIFF* Device or resource busy",
        ],
        code: Failed,
        cause: |found| format!("the tap `{}` is in use by another process", found.what),
        fix: |_| "give each guest a tap of its own".to_owned(),
    },
    Entry {
        id: "format",
        patterns: &["Image is not in * format"],
        code: Profile,
        cause: |found| {
            format!(
                "a disk's image is not in the format {} that the profile names",
                found.what
            )
        },
        fix: |_| {
            "`mvm disk info FILE` tells the format; leave out `format` to have it found out"
                .to_owned()
        },
    },
    Entry {
        id: "disk-full",
        patterns: &["No space left on device", "Disk quota exceeded"],
        code: Failed,
        cause: |found| format!("a file system of the host is full: {}", found.line),
        fix: |_| "make room there".to_owned(),
    },
    Entry {
        id: "permission",
        patterns: &[
            "Could not open '*': Permission denied",
            "open '*': Permission denied",
        ],
        code: Failed,
        cause: |found| format!("this user may not open {}", found.what),
        fix: |found| {
            format!(
                "check the owner and mode of {} and the folders above it; without write permission make the disk read-only",
                found.what
            )
        },
    },
    Entry {
        id: "missing",
        patterns: &[
            "Could not open '*': No such file or directory",
            "failed to open '*': No such file or directory",
            "could not open kernel file '*'",
            "could not load kernel '*'",
            "could not load initrd '*'",
        ],
        code: Failed,
        cause: |found| format!("{} is not there or not readable", found.what),
        fix: |_| {
            "correct the path in the profile; `mvm disk create` makes an empty disk, `mvm disk import` brings one".to_owned()
        },
    },
    Entry {
        id: "saved-state",
        patterns: &["load of migration failed: *"],
        code: Failed,
        cause: |_| {
            "QEMU cannot load the guest's saved state: its file is damaged, or does not fit this QEMU".to_owned()
        },
        fix: |_| {
            "it is kept; `mvm log NAME --qemu` shows what QEMU said. `--discard-hibernation` gives up what the guest had open and starts it anew".to_owned()
        },
    },
    Entry {
        id: "kernel",
        patterns: &["qemu: invalid kernel header"],
        code: Profile,
        cause: |_| "the file given as the kernel is none".to_owned(),
        fix: |_| "on x86 it is a bzImage, on Arm an Image".to_owned(),
    },
];
