//! Tap devices, by ioctl.
//!
//! The handful of ioctls that a tap needs are older than netlink's and say the same on every
//! kernel; a netlink crate would add an executor and half a megabyte for them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use nix::libc::{
    self, IFF_MULTI_QUEUE, IFF_NO_PI, IFF_TAP, IFF_UP, IFF_VNET_HDR, c_char, c_int, c_short, ifreq,
    sockaddr, sockaddr_in,
};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::OpsError;

const TUN: &str = "/dev/net/tun";

mod sys {
    use nix::libc::{SIOCSIFADDR, SIOCSIFFLAGS, SIOCSIFNETMASK, c_int, ifreq};

    /// `linux/sockios.h`
    const SIOCBRADDIF: nix::libc::c_ulong = 0x89a2;

    nix::ioctl_write_ptr_bad!(
        tunsetiff,
        nix::request_code_write!(b'T', 202, size_of::<c_int>()),
        ifreq
    );
    nix::ioctl_write_int_bad!(
        tunsetpersist,
        nix::request_code_write!(b'T', 203, size_of::<c_int>())
    );
    nix::ioctl_read_bad!(siocgifflags, nix::libc::SIOCGIFFLAGS, ifreq);
    nix::ioctl_write_ptr_bad!(siocsifflags, SIOCSIFFLAGS, ifreq);
    nix::ioctl_write_ptr_bad!(siocsifaddr, SIOCSIFADDR, ifreq);
    nix::ioctl_write_ptr_bad!(siocsifnetmask, SIOCSIFNETMASK, ifreq);
    nix::ioctl_write_ptr_bad!(siocsifaddr6, SIOCSIFADDR, super::In6Ifreq);
    nix::ioctl_write_ptr_bad!(siocsifmtu, nix::libc::SIOCSIFMTU, ifreq);
    nix::ioctl_write_ptr_bad!(siocbraddif, SIOCBRADDIF, ifreq);
}

/// `struct in6_ifreq` of `linux/ipv6.h`.
#[repr(C)]
pub(crate) struct In6Ifreq {
    addr: [u8; 16],
    prefix: u32,
    index: c_int,
}

/// An ioctl request about that device, all else zero.
fn request(name: &str) -> Result<ifreq, OpsError> {
    if name.is_empty() || name.len() >= libc::IFNAMSIZ || name.contains(['/', '\0']) {
        return Err(OpsError::NoDevice {
            name: name.to_owned(),
        });
    }
    // SAFETY: `ifreq` is plain data of the kernel's; all zeroes is a valid value of every field.
    let mut request: ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as c_char;
    }
    Ok(request)
}

fn sysfs(name: &str, file: &str) -> Option<String> {
    let text = fs::read_to_string(Path::new("/sys/class/net").join(name).join(file)).ok()?;
    Some(text.trim().to_owned())
}

fn exists(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}

/// The flags the device was made with; `None` where it is no tap.
fn tap_flags(name: &str) -> Option<c_int> {
    let text = sysfs(name, "tun_flags")?;
    let flags = c_int::from_str_radix(text.trim_start_matches("0x"), 16).ok()?;
    (flags & IFF_TAP != 0).then_some(flags)
}

fn attach(name: &str, flags: c_int) -> Result<File, OpsError> {
    let tun = OpenOptions::new()
        .read(true)
        .write(true)
        .open(TUN)
        .map_err(OpsError::io("open", Path::new(TUN)))?;
    let mut request = request(name)?;
    // The flags fit: the highest is IFF_VNET_HDR, 0x4000.
    request.ifr_ifru.ifru_flags = flags as c_short;
    // SAFETY: the descriptor is open and the kernel reads and writes one `ifreq`, which lives here.
    unsafe { sys::tunsetiff(tun.as_raw_fd(), &request) }
        .map_err(OpsError::net("attach to", name))?;
    Ok(tun)
}

/// A queue of a tap that exists.
pub(crate) fn open(name: &str) -> Result<OwnedFd, OpsError> {
    // Checked first: the ioctl would make a device of that name.
    if !exists(name) {
        return Err(OpsError::NoDevice {
            name: name.to_owned(),
        });
    }
    let made_with = tap_flags(name).ok_or_else(|| OpsError::NotATap {
        name: name.to_owned(),
    })?;
    attach(
        name,
        IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | (made_with & IFF_MULTI_QUEUE),
    )
    .map(Into::into)
}

/// How a tap is made.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct With {
    pub(crate) vnet_hdr: bool,
    pub(crate) multi_queue: bool,
    pub(crate) mtu: Option<u16>,
}

/// Makes a persistent tap that is up, in its bridge and has its address.
pub(crate) fn create(
    name: &str,
    bridge: Option<&str>,
    address: Option<&str>,
    with: With,
) -> Result<(), OpsError> {
    let address = address.map(parse_address).transpose()?;
    if let Some(bridge) = bridge {
        if !Path::new("/sys/class/net")
            .join(bridge)
            .join("bridge")
            .exists()
        {
            return Err(OpsError::NoDevice {
                name: bridge.to_owned(),
            });
        }
    }
    if exists(name) && tap_flags(name).is_none() {
        return Err(OpsError::NotATap {
            name: name.to_owned(),
        });
    }
    let header = if with.vnet_hdr { IFF_VNET_HDR } else { 0 };
    let queues = if with.multi_queue { IFF_MULTI_QUEUE } else { 0 };
    let tun = attach(name, IFF_TAP | IFF_NO_PI | header | queues)?;
    // SAFETY: the descriptor is open, and the argument is a number.
    unsafe { sys::tunsetpersist(tun.as_raw_fd(), 1) }.map_err(OpsError::net("keep", name))?;
    drop(tun);
    let index = interface_index(name)?;
    if let Some(mtu) = with.mtu {
        set_mtu(name, mtu)?;
    }
    if let Some(bridge) = bridge {
        join(bridge, name, index)?;
    }
    if let Some((ip, prefix)) = address {
        set_address(name, index, ip, prefix)?;
    }
    set_up(name)
}

fn interface_index(name: &str) -> Result<c_int, OpsError> {
    sysfs(name, "ifindex")
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| OpsError::NoEffect {
            what: format!("the making of the tap `{name}`"),
        })
}

fn join(bridge: &str, name: &str, index: c_int) -> Result<(), OpsError> {
    let member = || {
        Path::new("/sys/class/net")
            .join(bridge)
            .join("brif")
            .join(name)
            .exists()
    };
    if member() {
        return Ok(());
    }
    let control = control(AddressFamily::Inet, name)?;
    let mut request = request(bridge)?;
    request.ifr_ifru.ifru_ifindex = index;
    // SAFETY: the descriptor is an open socket, and the kernel reads one `ifreq`, which lives here.
    unsafe { sys::siocbraddif(control.as_raw_fd(), &request) }
        .map_err(OpsError::net("add a port to the bridge", bridge))?;
    if member() {
        return Ok(());
    }
    Err(OpsError::NoEffect {
        what: format!("joining `{name}` to the bridge `{bridge}`"),
    })
}

fn control(family: AddressFamily, name: &str) -> Result<OwnedFd, OpsError> {
    socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .map_err(OpsError::net("configure", name))
}

fn set_address(name: &str, index: c_int, ip: IpAddr, prefix: u8) -> Result<(), OpsError> {
    match ip {
        IpAddr::V4(ip) => {
            let control = control(AddressFamily::Inet, name)?;
            let mask = u32::MAX
                .checked_shl(32 - u32::from(prefix))
                .unwrap_or_default();
            let mut request = request(name)?;
            request.ifr_ifru.ifru_addr = address_v4(ip);
            // SAFETY: an open socket, and one `ifreq` that lives here and holds an IPv4 address.
            unsafe { sys::siocsifaddr(control.as_raw_fd(), &request) }
                .map_err(OpsError::net("give an address to", name))?;
            request.ifr_ifru.ifru_netmask = address_v4(Ipv4Addr::from(mask));
            // SAFETY: as above.
            unsafe { sys::siocsifnetmask(control.as_raw_fd(), &request) }
                .map_err(OpsError::net("give an address to", name))?;
        }
        IpAddr::V6(ip) => {
            let control = control(AddressFamily::Inet6, name)?;
            let request = In6Ifreq {
                addr: ip.octets(),
                prefix: prefix.into(),
                index,
            };
            // SAFETY: an open IPv6 socket, and one `in6_ifreq` that lives here.
            match unsafe { sys::siocsifaddr6(control.as_raw_fd(), &request) } {
                Ok(_) | Err(nix::Error::EEXIST) => {}
                Err(error) => return Err(OpsError::net("give an address to", name)(error)),
            }
        }
    }
    Ok(())
}

fn address_v4(ip: Ipv4Addr) -> sockaddr {
    let address = sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr {
            s_addr: u32::from(ip).to_be(),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: both are plain data of 16 bytes; the kernel reads it by its family.
    unsafe { std::mem::transmute::<sockaddr_in, sockaddr>(address) }
}

fn set_mtu(name: &str, mtu: u16) -> Result<(), OpsError> {
    let control = control(AddressFamily::Inet, name)?;
    let mut request = request(name)?;
    request.ifr_ifru.ifru_mtu = mtu.into();
    // SAFETY: an open socket, and one `ifreq` that lives here.
    unsafe { sys::siocsifmtu(control.as_raw_fd(), &request) }
        .map_err(OpsError::net("set the MTU of", name))?;
    Ok(())
}

fn set_up(name: &str) -> Result<(), OpsError> {
    let control = control(AddressFamily::Inet, name)?;
    let mut request = request(name)?;
    // SAFETY: an open socket, and one `ifreq` that lives here, which the kernel fills in.
    unsafe { sys::siocgifflags(control.as_raw_fd(), &mut request) }
        .map_err(OpsError::net("bring up", name))?;
    // SAFETY: the call before wrote this member of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    if c_int::from(flags) & IFF_UP != 0 {
        return Ok(());
    }
    // The value fits: IFF_UP is 1.
    request.ifr_ifru.ifru_flags = flags | IFF_UP as c_short;
    // SAFETY: an open socket, and one `ifreq` that lives here.
    unsafe { sys::siocsifflags(control.as_raw_fd(), &request) }
        .map_err(OpsError::net("bring up", name))?;
    Ok(())
}

/// Removes a tap; it may be gone already.
pub(crate) fn delete(name: &str) -> Result<(), OpsError> {
    if !exists(name) {
        return Ok(());
    }
    let made_with = tap_flags(name).ok_or_else(|| OpsError::NotATap {
        name: name.to_owned(),
    })?;
    let tun = attach(
        name,
        IFF_TAP | IFF_NO_PI | (made_with & (IFF_MULTI_QUEUE | IFF_VNET_HDR)),
    )?;
    // SAFETY: the descriptor is open, and the argument is a number.
    unsafe { sys::tunsetpersist(tun.as_raw_fd(), 0) }.map_err(OpsError::net("remove", name))?;
    // The device goes with its last descriptor.
    drop(tun);
    if exists(name) {
        return Err(OpsError::net("remove", name)(io::Error::from(
            io::ErrorKind::ResourceBusy,
        )));
    }
    Ok(())
}

fn parse_address(text: &str) -> Result<(IpAddr, u8), OpsError> {
    let bad = || OpsError::BadAddress {
        address: text.to_owned(),
    };
    let (ip, prefix) = text.split_once('/').ok_or_else(bad)?;
    let ip: IpAddr = ip.parse().map_err(|_| bad())?;
    let prefix: u8 = prefix.parse().map_err(|_| bad())?;
    if prefix > if ip.is_ipv4() { 32 } else { 128 } {
        return Err(bad());
    }
    Ok((ip, prefix))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_a_prefix() {
        assert_eq!(
            parse_address("10.0.0.1/24").unwrap(),
            ("10.0.0.1".parse().unwrap(), 24)
        );
        for bad in ["10.0.0.1", "10.0.0.1/33", "fe80::1/129", "x/1", ""] {
            assert!(parse_address(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_that_no_device_has() {
        for bad in ["", "0123456789abcdef", "a/b"] {
            assert!(request(bad).is_err(), "{bad}");
        }
    }

    /// A real tap where this process may make one: made, opened once, refused twice, removed.
    #[test]
    fn a_tap_comes_and_goes() {
        let name = format!("mvmt{}", std::process::id() % 100_000);
        let with = With {
            vnet_hdr: true,
            ..With::default()
        };
        match create(&name, None, Some("10.231.7.1/30"), with) {
            Err(error)
                if matches!(
                    error.os_error(),
                    Some(libc::EPERM | libc::EACCES | libc::ENOENT)
                ) =>
            {
                return;
            }
            made => made.unwrap(),
        }
        create(&name, None, Some("10.231.7.1/30"), with).unwrap();
        let routes = fs::read_to_string("/proc/net/fib_trie").unwrap();
        assert!(routes.contains("10.231.7.1"));
        let queue = open(&name).unwrap();
        let error = open(&name).unwrap_err();
        assert_eq!(error.os_error(), Some(libc::EBUSY), "{error}");
        assert!(delete(&name).is_err(), "a guest has it");
        drop(queue);
        delete(&name).unwrap();
        delete(&name).unwrap();
        assert!(!exists(&name));
        assert!(
            open(&name)
                .unwrap_err()
                .to_string()
                .contains("no network device")
        );
        assert!(matches!(open("lo"), Err(OpsError::NotATap { .. })));
        let with = With {
            multi_queue: true,
            mtu: Some(9000),
            ..with
        };
        create(&name, None, None, with).unwrap();
        assert_eq!(sysfs(&name, "mtu").as_deref(), Some("9000"));
        let queues = [open(&name).unwrap(), open(&name).unwrap()];
        drop(queues);
        delete(&name).unwrap();
    }
}
