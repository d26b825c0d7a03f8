//! A keyboard that a program makes, by the kernel's uinput. The program is this one, in the host.

use std::fs::{File, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use nix::libc;

use crate::host::Host;

pub(crate) const NAME: &str = "Keyboard of a program";
/// Where it reads the keys to press together, a line each time, by their numbers.
const KEYS: &str = "/tmp/uinput-keys";

/// `linux/input-event-codes.h`.
const EV_SYN: u16 = 0;
const EV_KEY: u16 = 1;
const SYN_REPORT: u16 = 0;
/// All that a keyboard has.
const LAST_KEY: i32 = 248;
const BUS_VIRTUAL: u16 = 6;

/// `linux/uinput.h`.
mod ioctl {
    use super::libc;
    nix::ioctl_none!(create, b'U', 1);
    nix::ioctl_write_ptr!(setup, b'U', 3, libc::uinput_setup);
    nix::ioctl_write_int!(set_evbit, b'U', 100);
    nix::ioctl_write_int!(set_keybit, b'U', 101);
}

/// Makes it. It is there until the host ends, or `unplug`.
#[track_caller]
pub(crate) fn plug(host: &Host) {
    host.run(&format!(
        "mkfifo {KEYS} && {{ LAB_KEYS={KEYS} /mvm/lab uinput::keyboard --exact --ignored --nocapture \
         </dev/null >/tmp/uinput.log 2>&1 & }}; echo $! >/tmp/uinput.pid; \
         for i in $(seq 100); do grep -q '{NAME}' /proc/bus/input/devices && exit; sleep 0.2; done; \
         cat /tmp/uinput.log; exit 1"
    ));
}

#[track_caller]
pub(crate) fn unplug(host: &Host) {
    host.run(&format!("kill $(cat /tmp/uinput.pid); rm {KEYS}"));
}

/// Presses those keys of it together.
#[track_caller]
pub(crate) fn press(host: &Host, keys: &[u16]) {
    let keys: Vec<String> = keys.iter().map(u16::to_string).collect();
    host.run(&format!("echo {} >{KEYS}; sleep 0.5", keys.join(" ")));
}

/// Started by `plug` in the host, never by itself.
#[test]
#[ignore = "the part that runs inside a host"]
fn keyboard() {
    let keys = std::env::var("LAB_KEYS").expect("`plug` starts this");
    let mut device = OpenOptions::new()
        .write(true)
        .open("/dev/uinput")
        .expect("the kernel's uinput");
    make(&device).expect("a device");
    // For writing too: otherwise it would end with the first who writes.
    let keys = OpenOptions::new().read(true).write(true).open(keys);
    for line in BufReader::new(keys.expect("a fifo")).lines() {
        let line = line.expect("text");
        let codes = line.split(' ').map(|code| code.parse().expect("a key"));
        let codes: Vec<u16> = codes.collect();
        for down in [1, 0] {
            for code in &codes {
                send(&mut device, EV_KEY, *code, down);
            }
            send(&mut device, EV_SYN, SYN_REPORT, 0);
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

fn make(device: &File) -> nix::Result<()> {
    let file = device.as_raw_fd();
    let mut name = [0; 80];
    for (to, from) in name.iter_mut().zip(NAME.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    let setup = libc::uinput_setup {
        id: libc::input_id {
            bustype: BUS_VIRTUAL,
            vendor: 1,
            product: 1,
            version: 1,
        },
        name,
        ff_effects_max: 0,
    };
    // SAFETY: the descriptor is open; these two take numbers.
    unsafe {
        ioctl::set_evbit(file, i32::from(EV_KEY) as _)?;
        for key in 1..=LAST_KEY {
            ioctl::set_keybit(file, key as _)?;
        }
    }
    // SAFETY: the descriptor is open, and the kernel only reads what is of the type that it wants.
    unsafe { ioctl::setup(file, &raw const setup)? };
    // SAFETY: the descriptor is open.
    unsafe { ioctl::create(file)? };
    Ok(())
}

/// `struct input_event`, whose time the kernel fills in.
fn send(device: &mut File, kind: u16, code: u16, value: i32) {
    let mut event = vec![0; 16];
    event.extend(kind.to_ne_bytes());
    event.extend(code.to_ne_bytes());
    event.extend(value.to_ne_bytes());
    device.write_all(&event).expect("the event is taken");
}
