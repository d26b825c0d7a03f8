//! Character devices: the monitors, consoles, channels, the agent.

use super::Context;
use super::args::{Args, Object, Options, path};
use super::chardev::{self, Log, socket};
use crate::machine::drivers::{self, Virtio};
use crate::machine::ports::{AGENT_PORT, MAX_VIRTIO_CONSOLES};
use crate::machine::slots::Single;
use crate::machine::{End, Machine};

/// The controller of consoles and channels.
pub(super) const SERIAL: &str = "mvm-serial";
/// The port of the agent. Port 0 can be a console's only, and is the first one's.
const AGENT_NUMBER: usize = 1;

/// The monitor that the supervisor uses, and a second one that writes down every event for whoever
/// comes after a dead supervisor.
pub(super) fn monitors(args: &mut Args, machine: &Machine) {
    let run = &machine.run_dir;
    let log = Log {
        path: path(&run.join("events.log")),
        append: true,
    };
    socket(args, "monitor", &run.join("monitor.sock"), None);
    socket(args, "events", &run.join("events.sock"), Some(&log));
    for chardev in ["monitor", "events"] {
        let monitor = Options::with("chardev", chardev).set("mode", "control");
        args.options("-mon", monitor);
    }
}

pub(super) fn add(args: &mut Args, machine: &Machine, context: Context) {
    if machine.has_serial_controller() {
        let place = context.slots.single(Single::Serial);
        args.device(context.virtio(Virtio::Serial, SERIAL).at(place));
    }
    let port = |driver, name: &str, number: usize, chardev: &str| {
        Object::device(driver, format!("mvm-{name}"))
            .set("bus", format!("{SERIAL}.0"))
            .set("nr", number)
            .set("chardev", chardev)
    };
    // Numbers that stay when another kind of port comes: 0 and 2 to 9 for consoles, 10 and on for
    // channels.
    let mut numbers = std::iter::once(0).chain(2..=MAX_VIRTIO_CONSOLES);
    for console in &machine.consoles {
        let chardev = format!("console-{}", console.id);
        let log = Log {
            path: path(&machine.state_dir.join(format!("log/{chardev}.log"))),
            append: false,
        };
        let log = (!console.unlogged).then_some(log);
        let pty = console.pty.then_some(&End::Pty);
        match console.end.as_ref().or(pty) {
            Some(end) => chardev::end(args, &chardev, end, log.as_ref(), machine),
            None => {
                let socket_path = machine.run_dir.join(format!("{chardev}.qemu.sock"));
                socket(args, &chardev, &socket_path, log.as_ref());
            }
        }
        if let Some(index) = console.isa {
            let uart = Object::device(drivers::ISA_SERIAL, format!("mvm-{chardev}"));
            args.device(uart.set("index", index).set("chardev", chardev));
        } else if console.virtio {
            let number = numbers.next().unwrap_or(MAX_VIRTIO_CONSOLES);
            args.device(port(drivers::CONSOLE_PORT, &chardev, number, &chardev));
        } else {
            args.raw("-serial", format!("chardev:{chardev}"));
        }
    }
    if machine.agent {
        socket(args, "agent", &machine.run_dir.join("agent.sock"), None);
        let agent = port(drivers::SERIAL_PORT, "agent", AGENT_NUMBER, "agent");
        args.device(agent.set("name", AGENT_PORT));
    }
    for (channel, number) in machine.channels.iter().zip(MAX_VIRTIO_CONSOLES + 1..) {
        let chardev = format!("channel-{}", channel.id);
        match &channel.end {
            Some(end) => chardev::end(args, &chardev, end, None, machine),
            None => {
                let socket_path = machine.run_dir.join(format!("{chardev}.sock"));
                socket(args, &chardev, &socket_path, None);
            }
        }
        let device = port(drivers::SERIAL_PORT, &chardev, number, &chardev);
        args.device(device.set("name", channel.port.as_str()));
    }
}
