//! A keyboard of the host, which host and guest take turns in having.

use std::time::Duration;

use crate::host::Host;

/// The node of the input device of that name, of the host or of a guest.
fn node(name: &str) -> String {
    format!(
        "sed -n '/Name=\"{name}\"/,/^$/s/.*Handlers=.*\\(event[0-9]*\\).*/\\/dev\\/input\\/\\1/p' /proc/bus/input/devices"
    )
}

/// Writes down what comes from the node, in the background.
fn listen(node: &str) -> String {
    format!("cat {node} >/tmp/keys & echo $! >/tmp/listener; sleep 1")
}

/// The keys that went down since, by the numbers of `linux/input-event-codes.h`: an event is two times of eight bytes,
/// its type, its code and its value.
const DOWN: &str = "od -An -v -t x2 -w24 /tmp/keys | awk '$9 == \"0001\" && $11 == \"0001\" { printf \"%s \", $10 }'";
const A: &str = "001e";
const B: &str = "0030";
const C: &str = "002e";

/// Runs `ask` until it says that.
#[track_caller]
fn says(wanted: &str, ask: impl Fn() -> String) {
    let mut said = String::new();
    for _ in 0..20 {
        said = ask();
        if said.trim() == wanted {
            return;
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    panic!("{said:?}, not {wanted:?}");
}

#[test]
fn a_keyboard_of_the_host_goes_to_its_guest_and_back() {
    let host = Host::x86().modules("evdev usbhid hid_generic").boot();
    let keyboard = host.run(&format!(
        "udevadm settle 2>/dev/null; {}",
        node("QEMU QEMU USB Keyboard")
    ));
    assert!(keyboard.starts_with("/dev/input/event"), "{keyboard}");
    host.run(&format!(
        "mkdir -p /etc/mvm/machines && cat >/etc/mvm/machines/inner.toml <<'END'\n\
         extends = [\"linux\"]\n\
         [cpu]\ncount = 1\n\
         [memory]\nsize = \"256M\"\n\
         [boot]\nkernel = \"/images/x86_64-full/vmlinux\"\ninitrd = \"/images/x86_64-full/initrd\"\n\
         append = \"console=ttyS0 quiet\"\n\
         [network.lan]\nnone = {{}}\n\
         [input.host]\ndevice = \"evdev\"\nevdev = {{ path = \"{keyboard}\", grab-all = true }}\n\
         [input.keys]\ndevice = \"keyboard\"\nbus = \"virtio\"\nEND"
    ));
    let before = host.snapshot();
    let guest = host.start("inner", "mvm start inner");
    let inside = guest.run(&node("QEMU Virtio Keyboard"));
    guest.run(&listen(&inside));
    host.run(&listen(&keyboard));

    // QEMU has it from the start.
    host.press(&["a"]);
    says(A, || guest.run(DOWN));
    assert_eq!(host.run(DOWN), "");
    // Both control keys give it to the host.
    host.press(&["ctrl", "ctrl_r"]);
    host.press(&["b"]);
    says(B, || host.run(DOWN));
    assert!(!guest.run(DOWN).contains(B));
    // And back.
    host.press(&["ctrl", "ctrl_r"]);
    host.press(&["c"]);
    says("true", || guest.run(DOWN).contains(C).to_string());
    assert!(!host.run(DOWN).contains(C));

    // A QEMU that is killed leaves it to the host.
    host.run(
        "kill -KILL $(mvm show inner --format json | sed -n 's/^  \"pid\": \\([0-9]*\\),*/\\1/p')",
    );
    host.run("mvm wait inner --for stopped --timeout 30s || true");
    host.press(&["c"]);
    says("true", || host.run(DOWN).contains(C).to_string());
    host.run("kill $(cat /tmp/listener)");
    host.settles_to(&before);
}
