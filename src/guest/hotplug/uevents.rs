//! What the kernel tells about devices that are plugged in (`lib/kobject_uevent.c`).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, socket,
};
use tokio::io::unix::AsyncFd;

/// The kernel's own messages; those of udev are another group.
const KERNEL: u32 = 1;
/// The longest message (`UEVENT_BUFFER_SIZE` and the path before it).
const MESSAGE: usize = 8 << 10;

/// The messages, from when it is made.
pub(super) struct Uevents(AsyncFd<OwnedFd>);

impl Uevents {
    #[expect(
        deprecated,
        reason = "nothing here closes the descriptor or gives another one out; what replaces it is unsafe"
    )]
    pub(super) fn open() -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, KERNEL))?;
        Ok(Self(AsyncFd::new(fd)?))
    }

    /// The next USB device that comes or goes.
    pub(super) async fn usb(&self) -> io::Result<Plugged> {
        let mut buffer = vec![0; MESSAGE];
        loop {
            let mut ready = self.0.readable().await?;
            let received = ready.try_io(|fd| {
                recvfrom::<NetlinkAddr>(fd.as_raw_fd(), &mut buffer).map_err(io::Error::from)
            });
            let (length, from) = match received {
                Ok(Ok(received)) => received,
                Ok(Err(error)) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => {
                    return Ok(Plugged::Unknown);
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => continue,
            };
            // Processes can send to the group too.
            if from.is_some_and(|from| from.pid() == 0) {
                if let Some(plugged) = usb(&buffer[..length]) {
                    return Ok(plugged);
                }
            }
        }
    }
}

/// What became of a USB device, by the kernel's name of it: `1-3.2`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Plugged {
    /// It was plugged in.
    In(String),
    /// It was pulled out.
    Out(String),
    /// Messages were lost.
    Unknown,
}

/// What a message says of a USB device.
fn usb(message: &[u8]) -> Option<Plugged> {
    let text = String::from_utf8_lossy(message);
    let mut parts = text.split('\0');
    let (action, path) = parts.next()?.split_once('@')?;
    let parts: Vec<&str> = parts.collect();
    let said = ["SUBSYSTEM=usb", "DEVTYPE=usb_device"];
    if !said.iter().all(|word| parts.contains(word)) {
        return None;
    }
    let name = path.rsplit('/').next()?.to_owned();
    match action {
        "add" => Some(Plugged::In(name)),
        "remove" => Some(Plugged::Out(name)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_devices_that_come_and_go_are_told() {
        let message = b"add@/devices/pci0000:00/0000:00:0f.0/usb1/1-3/1-3.2\0ACTION=add\0\
            SUBSYSTEM=usb\0DEVTYPE=usb_device\0BUSNUM=001\0";
        assert_eq!(usb(message), Some(Plugged::In("1-3.2".to_owned())));
        let interface = b"add@/devices/usb1/1-3/1-3:1.0\0SUBSYSTEM=usb\0DEVTYPE=usb_interface\0";
        assert_eq!(usb(interface), None);
        let bound = b"bind@/devices/usb1/1-3\0SUBSYSTEM=usb\0DEVTYPE=usb_device\0";
        assert_eq!(usb(bound), None);
        let gone = b"remove@/devices/usb1/1-3\0SUBSYSTEM=usb\0DEVTYPE=usb_device\0";
        assert_eq!(usb(gone), Some(Plugged::Out("1-3".to_owned())));
        assert_eq!(usb(b"\xff\xfe"), None);
    }

    #[tokio::test]
    async fn anybody_may_listen() {
        let events = Uevents::open();
        // Where there is no netlink at all (some containers), nothing is heard either.
        if let Ok(events) = events {
            let short = std::time::Duration::from_millis(10);
            let heard = tokio::time::timeout(short, events.usb()).await;
            assert!(heard.is_err() || heard.is_ok_and(|heard| heard.is_ok()));
        }
    }
}
