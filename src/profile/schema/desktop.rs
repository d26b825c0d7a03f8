//! The tables of what a person hears and holds of a guest, and of what it draws on.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::NoDevice;
use crate::units::Size;

table! {
    /// `[video.NAME]`: what the guest draws on. A guest that is shown somewhere and whose profile has none gets
    /// `video0`: `virtio-vga`, on `virt` and `microvm` `virtio-gpu`.
    VideoTable {
        /// The device; `none` takes away one that a lower layer gave. By default as for `video0`.
        model: VideoModel,
        /// The one that firmware and boot loaders draw on. By default the first by name.
        primary: bool,
        /// How many outputs it has: `virtio-vga` and `virtio-gpu` 1 to 16, `qxl` too.
        outputs: u32,
        /// Pictures are shared with the host's GPU instead of copied (`virtio-vga`, `virtio-gpu`).
        blob: bool,
        /// The guest computes in three dimensions on the host's GPU (`virtio-vga`, `virtio-gpu`); wants a display
        /// with `gl`.
        accel_3d: bool,
        /// The memory of the commands and pictures on the way (`qxl`).
        ram: Size,
        /// The memory of the surfaces (`qxl`).
        vram: Size,
        /// The memory of the screen (`qxl`, `std`, `cirrus`, `bochs`).
        vgamem: Size,
        /// The window through which the guest sees the host's memory (`virtio-vga`, `virtio-gpu`).
        hostmem: Size,
        /// The width that it proposes.
        xres: u32,
        /// The height that it proposes.
        yres: u32,
    }
}

table! {
    /// `[audio.NAME]`
    AudioTable {
        /// What the guest sees; `none` takes away one that a lower layer gave. By default `ich9`.
        device: AudioDevice,
        /// What is connected to `ich9` and `ich6`. By default `duplex`.
        codec: AudioCodec,
        /// Where the sound goes on the host. By default `spice` with SPICE, else `none`.
        backend: AudioBackend,
    }
}

table! {
    /// `[input.NAME]`. A guest that is shown somewhere and whose profile has none gets `tablet`, and on boards
    /// without one `keyboard`.
    InputTable {
        /// What it is; `none` takes away one that a lower layer gave.
        device: InputDevice,
        /// What the guest sees it on. By default `usb`, on `microvm` `virtio`.
        bus: InputBus,
        /// With `device = "evdev"`: the host's device that the guest gets.
        evdev: EvdevTable,
    }
}

table! {
    /// `input.NAME.evdev`: a keyboard or mouse of the host, which host and guest take turns in having.
    EvdevTable {
        /// The device, as in `/dev/input/by-id/usb-Logitech_G502-event-mouse`.
        path: String,
        /// With this one all others are taken and given back too; for the keyboard that has the hotkey.
        grab_all: bool,
        /// Keys that are held are repeated.
        repeat: bool,
        /// The keys that hand it over and back. By default both control keys together.
        hotkey: EvdevHotkey,
    }
}

table! {
    /// `[shmem.NAME]`: memory that the guest shares with programs of the host (`ivshmem`), as Looking Glass and
    /// Scream want it.
    ShmemTable {
        /// The size: a power of two from 1M on.
        size: Size,
        /// The file that it is on the host, as in `/dev/shm/looking-glass`. By default one in the guest's run-time
        /// directory.
        path: String,
        /// No memory: takes away one that a lower layer gave, as in `none = {}`.
        none: NoDevice,
    }
}

table! {
    /// `[usb-redirect]`: devices of a SPICE viewer's host reach the guest.
    UsbRedirectTable {
        /// How many at once, 0 to 8. By default 2.
        ports: u32,
    }
}

table! {
    /// `[usb-controller]`: the guest's one USB controller. It has one too where a device needs it.
    UsbControllerTable {
        /// The controller. By default `xhci`.
        model: UsbModel,
        /// How many ports it has, 1 to 15 (`xhci`, `nec-xhci`). By default 15.
        ports: u32,
    }
}

words! {
    /// `video.NAME.model`
    VideoModel {
        /// SPICE's own device.
        Qxl = "qxl",
        /// virtio with VGA.
        VirtioVga = "virtio-vga",
        /// virtio without VGA.
        VirtioGpu = "virtio-gpu",
        /// The standard VGA of QEMU.
        Std = "std",
        /// Cirrus Logic GD5446, for old systems.
        Cirrus = "cirrus",
        /// The standard VGA without VGA's registers, for UEFI.
        Bochs = "bochs",
        /// Memory that firmware draws into, and nothing else.
        Ramfb = "ramfb",
        /// No device.
        None = "none",
    }
}

words! {
    /// `audio.NAME.device`
    AudioDevice {
        /// Intel HD Audio of the ICH9.
        Ich9 = "ich9",
        /// Intel HD Audio of the ICH6.
        Ich6 = "ich6",
        /// Intel 82801AA AC97.
        Ac97 = "ac97",
        /// Ensoniq ES1370.
        Es1370 = "es1370",
        /// Sound Blaster 16, on the ISA bus.
        Sb16 = "sb16",
        /// A USB sound card.
        Usb = "usb",
        /// virtio-sound, from QEMU 8.2 on.
        Virtio = "virtio",
        /// No device.
        None = "none",
    }
}

words! {
    /// `audio.NAME.codec`
    AudioCodec {
        /// Line out and line in.
        Duplex = "duplex",
        /// A loudspeaker and a microphone.
        Micro = "micro",
        /// Line out.
        Output = "output",
    }
}

words! {
    /// `audio.NAME.backend`
    AudioBackend {
        /// Nowhere, in time.
        None = "none",
        /// The PulseAudio of the session that has the window, or of the user who runs QEMU.
        Pulseaudio = "pulseaudio",
        /// PipeWire, likewise; from QEMU 8.1 on.
        Pipewire = "pipewire",
        /// ALSA's default device.
        Alsa = "alsa",
        /// SPICE's viewer.
        Spice = "spice",
        /// The D-Bus display.
        Dbus = "dbus",
    }
}

words! {
    /// `input.NAME.device`
    InputDevice {
        /// A pointer that is told where to be.
        Tablet = "tablet",
        /// A pointer that is told how far to go.
        Mouse = "mouse",
        /// A keyboard.
        Keyboard = "keyboard",
        /// A device of the host.
        Evdev = "evdev",
        /// No device.
        None = "none",
    }
}

words! {
    /// `input.NAME.bus`
    InputBus {
        /// USB.
        Usb = "usb",
        /// The board's own keyboard and mouse (`q35` and `pc`).
        Ps2 = "ps2",
        /// virtio.
        Virtio = "virtio",
    }
}

words! {
    /// `input.NAME.evdev.hotkey`
    EvdevHotkey {
        /// Both control keys.
        CtrlCtrl = "ctrl-ctrl",
        /// Both alt keys.
        AltAlt = "alt-alt",
        /// Both shift keys.
        ShiftShift = "shift-shift",
        /// Both meta keys.
        MetaMeta = "meta-meta",
        /// Scroll lock.
        Scrolllock = "scrolllock",
        /// Control and scroll lock.
        CtrlScrolllock = "ctrl-scrolllock",
    }
}

words! {
    /// `usb-controller.model`
    UsbModel {
        /// USB 3, of QEMU's own.
        Xhci = "xhci",
        /// USB 3, NEC's.
        NecXhci = "nec-xhci",
        /// USB 2.
        Ehci = "ehci",
        /// USB 1, for old systems.
        Uhci = "uhci",
    }
}
