//! Consoles and channels: what is connected by bytes.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{ConsoleBackend, ConsoleDevice};

table! {
    /// `[console.NAME]`: at most one of `backend`, `host`, `unix`, `tcp`, `udp` and `file`.
    ConsoleTable {
        /// What the guest sees. By default `serial` for `main` and `virtio` for the others.
        device: ConsoleDevice,
        /// Where it leads on the host. By default `mvm`.
        backend: ConsoleBackend,
        /// A serial port or pseudo-terminal of the host, rather than `backend`.
        host: HostPort,
        /// A Unix socket.
        unix: UnixEnd,
        /// A TCP connection.
        tcp: TcpEnd,
        /// UDP packets.
        udp: UdpEnd,
        /// A file that gets what comes from the guest.
        file: FileEnd,
        /// What comes from the guest is written to a log too: `log/console-NAME.log` in the guest's state directory.
        /// On by default.
        log: bool,
    }
}

table! {
    /// `[channel.NAME]`: a virtio-serial port. Its other end is a socket that `mvm show` tells, unless one of `backend`,
    /// `host`, `unix`, `tcp`, `udp` and `file` says another.
    ChannelTable {
        /// The name that the guest sees under `/dev/virtio-ports`. By default the table's.
        port: String,
        /// `false` takes away one that a lower layer gave.
        enabled: bool,
        /// Where it leads on the host. By default a socket of mvm's.
        backend: ConsoleBackend,
        /// A serial port or pseudo-terminal of the host, rather than `backend`.
        host: HostPort,
        /// A Unix socket.
        unix: UnixEnd,
        /// A TCP connection.
        tcp: TcpEnd,
        /// UDP packets.
        udp: UdpEnd,
        /// A file that gets what comes from the guest.
        file: FileEnd,
    }
}

table! {
    /// `host` of a console or channel
    HostPort {
        /// The device, as in `/dev/ttyUSB0`. Nobody else should have it open.
        device: String,
    }
}

table! {
    /// `unix` of a console or channel
    UnixEnd {
        /// The socket's path.
        path: String,
        /// mvm makes the socket, and others connect to it. By default the guest connects to one that is there.
        listen: bool,
        /// A connection that was lost, or not there yet, is tried again every so many seconds. By default it is not.
        reconnect: u32,
    }
}

table! {
    /// `tcp` of a console or channel
    TcpEnd {
        /// The address or name. By default `127.0.0.1`.
        address: String,
        /// The port.
        port: u16,
        /// Others connect to the port. By default the guest connects.
        listen: bool,
        /// The bytes are a telnet session's.
        telnet: bool,
        /// A connection that was lost, or not there yet, is tried again every so many seconds. By default it is not.
        reconnect: u32,
    }
}

table! {
    /// `udp` of a console or channel
    UdpEnd {
        /// Where packets go. By default `127.0.0.1`.
        address: String,
        /// The port they go to.
        port: u16,
        /// The port at which packets to the guest arrive, on 127.0.0.1 or as `local-address` says.
        local_port: u16,
        /// The address at which they arrive.
        local_address: String,
    }
}

table! {
    /// `file` of a console or channel
    FileEnd {
        /// The path.
        path: String,
        /// What is there stays. By default the file is emptied first.
        append: bool,
    }
}
