//! `-chardev`: where bytes go on the host.

use std::path::{Path, PathBuf};

use super::args::{Args, Options, path};
use super::command::FdSource;
use crate::machine::{End, Machine};

/// Where a character device writes down what comes from the guest.
pub(super) struct Log {
    pub(super) path: String,
    pub(super) append: bool,
}

impl Log {
    fn add(&self, options: Options) -> Options {
        let append = if self.append { "on" } else { "off" };
        options.set("logfile", &self.path).set("logappend", append)
    }
}

fn logged(options: Options, log: Option<&Log>) -> Options {
    match log {
        Some(log) => log.add(options),
        None => options,
    }
}

/// A socket that mvm binds and QEMU accepts on.
pub(super) fn socket(args: &mut Args, id: &str, socket_path: &Path, log: Option<&Log>) {
    let finish = |options: Options| logged(options.set("server", "on").set("wait", "off"), log);
    let socket = Options::new("socket").set("id", id);
    let real = socket.clone().set("fd", format!("{{fd:{id}}}"));
    let shown = socket.set("path", path(socket_path));
    args.options_fd("-chardev", finish(real), finish(shown));
    args.fd(id, FdSource::Listen(socket_path.to_owned()));
}

/// A Unix socket that somebody else listens on.
pub(super) fn connect(args: &mut Args, id: &str, socket_path: &Path) {
    let socket = Options::new("socket").set("id", id);
    args.options("-chardev", socket.set("path", path(socket_path)));
}

/// The socket of a program that mvm runs beside QEMU: QEMU gets the connection.
pub(super) fn beside(args: &mut Args, id: &str, socket: PathBuf) {
    let chardev = Options::new("socket").set("id", id);
    let real = chardev.clone().set("fd", format!("{{fd:{id}}}"));
    args.options_fd("-chardev", real, chardev.set("path", path(&socket)));
    args.fd(id, FdSource::Connect(socket));
}

const fn on(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// An end that is not mvm's own.
pub(super) fn end(args: &mut Args, id: &str, end: &End, log: Option<&Log>, machine: &Machine) {
    let options = Options::new(end.backend()).set("id", id);
    // 9.2 counts in milliseconds, and says so of the other.
    let again = |options: Options, reconnect: &Option<u32>| match reconnect {
        Some(seconds) if machine.qemu.version >= (9, 2, 0) => {
            options.set("reconnect-ms", u64::from(*seconds) * 1000)
        }
        Some(seconds) => options.set("reconnect", seconds),
        None => options,
    };
    let options = match end {
        End::Unix {
            path, listen: true, ..
        } => return socket(args, id, path, log),
        End::Pty | End::Null => options,
        End::Host(device) => options.set("path", path(device)),
        End::Unix {
            path: socket,
            reconnect,
            ..
        } => again(options.set("path", path(socket)), reconnect),
        End::Tcp {
            address,
            port,
            listen,
            telnet,
            reconnect,
        } => {
            let options = options.set("host", address).set("port", port);
            let options = if *telnet {
                options.set("telnet", "on")
            } else {
                options
            };
            if *listen {
                options.set("server", "on").set("wait", "off")
            } else {
                again(options, reconnect)
            }
        }
        End::Udp {
            address,
            port,
            local_address,
            local_port,
        } => {
            let options = options.set("host", address).set("port", port);
            match local_port {
                Some(local) => options
                    .set("localaddr", local_address)
                    .set("localport", local),
                None => options,
            }
        }
        End::File { path: file, append } => {
            options.set("path", path(file)).set("append", on(*append))
        }
    };
    args.options("-chardev", logged(options, log));
}
