//! Keyboards of the host, which host and guest take turns in having: one that is plugged in, and one that a program
//! makes.

use std::time::Duration;

use crate::guest::Guest;
use crate::host::Host;
use crate::uinput;

/// The node of the input device of that name, of the host or of a guest.
fn node(name: &str) -> String {
    format!(
        "sed -n '/Name=\"{name}\"/,/^$/s/.*Handlers=.*\\(event[0-9]*\\).*/\\/dev\\/input\\/\\1/p' /proc/bus/input/devices"
    )
}

/// Writes down what comes from the node, in the background.
fn listen(node: &str, file: &str) -> String {
    format!("cat {node} >/tmp/{file} & echo $! >>/tmp/listeners; sleep 1")
}

/// The keys that went down since, by the numbers of `linux/input-event-codes.h`: an event is two times of eight bytes,
/// its type, its code and its value.
fn down(file: &str) -> String {
    format!(
        "od -An -v -t x2 -w24 /tmp/{file} | awk '$9 == \"0001\" && $11 == \"0001\" {{ printf \"%s \", $10 }}'"
    )
}

const A: u16 = 0x1e;
const B: u16 = 0x30;
const C: u16 = 0x2e;
const D: u16 = 0x20;
const E: u16 = 0x12;
const F: u16 = 0x21;
const G: u16 = 0x22;
const H: u16 = 0x23;
const CONTROLS: [u16; 2] = [29, 97];

/// What a keyboard of the host is to the test.
struct Keyboard<'a> {
    /// Where the host writes down what it gets of it.
    file: &'static str,
    press: &'a dyn Fn(&[u16]),
}

struct Sides<'a> {
    host: &'a Host,
    guest: Guest<'a>,
}

impl Sides<'_> {
    fn host_has(&self, keyboard: &Keyboard, key: u16) -> bool {
        self.host
            .run(&down(keyboard.file))
            .contains(&format!("{key:04x}"))
    }

    fn guest_has(&self, key: u16) -> bool {
        self.guest
            .run(&down("keys"))
            .contains(&format!("{key:04x}"))
    }

    /// A key of that keyboard is the guest's, and not the host's.
    #[track_caller]
    fn goes_to_guest(&self, keyboard: &Keyboard, key: u16) {
        (keyboard.press)(&[key]);
        until("the guest gets it", || self.guest_has(key));
        assert!(!self.host_has(keyboard, key), "{}: {key}", keyboard.file);
    }

    /// It is the host's, and not the guest's.
    #[track_caller]
    fn goes_to_host(&self, keyboard: &Keyboard, key: u16) {
        (keyboard.press)(&[key]);
        until("the host gets it", || self.host_has(keyboard, key));
        assert!(!self.guest_has(key), "{}: {key}", keyboard.file);
    }
}

#[track_caller]
fn until(what: &str, ask: impl Fn() -> bool) {
    for _ in 0..20 {
        if ask() {
            return;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    panic!("not so: {what}");
}

/// QEMU's words for the keys.
fn words(keys: &[u16]) -> Vec<&'static str> {
    let word = |key: &u16| match *key {
        A => "a",
        B => "b",
        C => "c",
        H => "h",
        29 => "ctrl",
        97 => "ctrl_r",
        other => panic!("no word for {other}"),
    };
    keys.iter().map(word).collect()
}

#[test]
fn a_keyboard_of_the_host_goes_to_its_guest_and_back() {
    let host = Host::x86()
        .modules("evdev usbhid hid_generic uinput")
        .boot();
    uinput::plug(&host);
    let plugged = host.run(&node("QEMU QEMU USB Keyboard"));
    let made = host.run(&node(uinput::NAME));
    for node in [&plugged, &made] {
        assert!(node.starts_with("/dev/input/event"), "{node}");
    }
    host.run(&format!(
        "mkdir -p /etc/mvm/machines && cat >/etc/mvm/machines/inner.toml <<'END'\n\
         extends = [\"linux\"]\n\
         [cpu]\ncount = 1\n\
         [memory]\nsize = \"256M\"\n\
         [boot]\nkernel = \"/images/x86_64-full/vmlinux\"\ninitrd = \"/images/x86_64-full/initrd\"\n\
         append = \"console=ttyS0 quiet\"\n\
         [network.lan]\nnone = {{}}\n\
         [input.host]\ndevice = \"evdev\"\nevdev = {{ path = \"{plugged}\", grab-all = true }}\n\
         [input.made]\ndevice = \"evdev\"\nevdev = {{ path = \"{made}\" }}\n\
         [input.keys]\ndevice = \"keyboard\"\nbus = \"virtio\"\nEND"
    ));
    let before = host.snapshot();
    let guest = host.start("inner", "mvm start inner");
    let inside = guest.run(&node("QEMU Virtio Keyboard"));
    guest.run(&listen(&inside, "keys"));
    host.run(&listen(&plugged, "plugged"));
    host.run(&listen(&made, "made"));
    let plugged = Keyboard {
        file: "plugged",
        press: &|keys| host.press(&words(keys)),
    };
    let made = Keyboard {
        file: "made",
        press: &|keys| uinput::press(&host, keys),
    };
    let sides = Sides { host: &host, guest };

    // QEMU has both from the start.
    sides.goes_to_guest(&plugged, A);
    sides.goes_to_guest(&made, D);
    // Both control keys give a keyboard to the host; those of the one that takes all with it, the other as well.
    (made.press)(&CONTROLS);
    sides.goes_to_host(&made, E);
    sides.goes_to_guest(&plugged, B);
    (made.press)(&CONTROLS);
    (plugged.press)(&CONTROLS);
    sides.goes_to_host(&plugged, C);
    sides.goes_to_host(&made, F);
    // And back.
    (plugged.press)(&CONTROLS);
    sides.goes_to_guest(&plugged, H);
    sides.goes_to_guest(&made, G);

    // A QEMU that is killed leaves them to the host.
    host.run(
        "kill -KILL $(mvm show inner --format json | sed -n 's/^  \"pid\": \\([0-9]*\\),*/\\1/p')",
    );
    host.run("mvm wait inner --for stopped --timeout 30s || true");
    (plugged.press)(&[A]);
    until("the host gets it", || sides.host_has(&plugged, A));
    (made.press)(&[D]);
    until("the host gets it", || sides.host_has(&made, D));
    host.run("kill $(cat /tmp/listeners)");
    host.settles_to(&before);
    uinput::unplug(&host);
}
