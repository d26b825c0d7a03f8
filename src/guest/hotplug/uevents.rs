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

    /// The name of the next USB device that is plugged in, `1-3.2`; none where messages were lost.
    pub(super) async fn usb_added(&self) -> io::Result<Option<String>> {
        let mut buffer = vec![0; MESSAGE];
        loop {
            let mut ready = self.0.readable().await?;
            let received = ready.try_io(|fd| {
                recvfrom::<NetlinkAddr>(fd.as_raw_fd(), &mut buffer).map_err(io::Error::from)
            });
            let (length, from) = match received {
                Ok(Ok(received)) => received,
                Ok(Err(error)) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => {
                    return Ok(None);
                }
                Ok(Err(error)) => return Err(error),
                Err(_) => continue,
            };
            // Processes can send to the group too.
            if from.is_some_and(|from| from.pid() == 0) {
                if let Some(name) = usb_added(&buffer[..length]) {
                    return Ok(Some(name));
                }
            }
        }
    }
}

/// The USB device that a message says was added.
fn usb_added(message: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(message);
    let mut parts = text.split('\0');
    let path = parts.next()?.strip_prefix("add@")?;
    let parts: Vec<&str> = parts.collect();
    let said = ["SUBSYSTEM=usb", "DEVTYPE=usb_device"];
    if !said.iter().all(|word| parts.contains(word)) {
        return None;
    }
    path.rsplit('/').next().map(ToOwned::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_devices_that_come_are_told() {
        let message = b"add@/devices/pci0000:00/0000:00:0f.0/usb1/1-3/1-3.2\0ACTION=add\0\
            SUBSYSTEM=usb\0DEVTYPE=usb_device\0BUSNUM=001\0";
        assert_eq!(usb_added(message).as_deref(), Some("1-3.2"));
        let interface = b"add@/devices/usb1/1-3/1-3:1.0\0SUBSYSTEM=usb\0DEVTYPE=usb_interface\0";
        assert_eq!(usb_added(interface), None);
        let gone = b"remove@/devices/usb1/1-3\0SUBSYSTEM=usb\0DEVTYPE=usb_device\0";
        assert_eq!(usb_added(gone), None);
        assert_eq!(usb_added(b"\xff\xfe"), None);
    }

    #[tokio::test]
    async fn anybody_may_listen() {
        let events = Uevents::open();
        // Where there is no netlink at all (some containers), nothing is heard either.
        if let Ok(events) = events {
            let short = std::time::Duration::from_millis(10);
            let heard = tokio::time::timeout(short, events.usb_added()).await;
            assert!(heard.is_err() || heard.is_ok_and(|heard| heard.is_ok()));
        }
    }
}
