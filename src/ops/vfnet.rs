//! Address and VLAN of a network card's virtual functions, which its physical function's driver holds.
//!
//! Two messages of rtnetlink (`linux/rtnetlink.h`, `linux/if_link.h`), written and read by hand: a
//! netlink crate would bring an executor and thirty others for them.

use std::io;
use std::path::Path;

use super::device_error::DeviceError;
use super::driver::dir_of;
use super::sysfs::Place;
use crate::ids::Bdf;
use crate::plan::step::VfNetState;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const IFLA_VFINFO_LIST: u16 = 22;
const IFLA_EXT_MASK: u16 = 29;
const RTEXT_FILTER_VF: u32 = 1;
const IFLA_VF_INFO: u16 = 1;
const IFLA_VF_MAC: u16 = 1;
const IFLA_VF_VLAN: u16 = 2;

/// The header of a message, then that of a link.
const HEADERS: usize = 16 + 16;

/// The physical function's network device.
struct Link<'a> {
    place: &'a Place,
    pf: Bdf,
    name: String,
    index: i32,
}

impl<'a> Link<'a> {
    fn of(place: &'a Place, pf: Bdf) -> Result<Self, DeviceError> {
        let net = dir_of(pf).join("net");
        place
            .list(&net)
            .into_iter()
            .find_map(|name| {
                let index = place.number(net.join(&name).join("ifindex"))?;
                Some(Self {
                    place,
                    pf,
                    name,
                    index,
                })
            })
            .ok_or_else(|| DeviceError::NoLink { pf: pf.to_string() })
    }

    fn send(&self, what: &str, message: &[u8]) -> Result<Vec<u8>, DeviceError> {
        let device = self.place.device(format!("pci-{}", self.pf));
        device.netlink(what, message)
    }

    /// What is set for a virtual function, counted from 0.
    fn state(&self, vf: u32) -> Result<VfNetState, DeviceError> {
        let mut message = header(RTM_GETLINK, NLM_F_REQUEST, self.index);
        attribute(&mut message, IFLA_EXT_MASK, &RTEXT_FILTER_VF.to_ne_bytes());
        let answer = self.send("asking about virtual functions", &finish(message))?;
        parse(&answer, vf).map_err(DeviceError::read(Path::new("netlink")))
    }

    fn set(&self, vf: u32, to: &VfNetState) -> io::Result<Vec<u8>> {
        let mut settings = Vec::new();
        if let Some(mac) = to.mac {
            // struct ifla_vf_mac
            let mut body = vf.to_ne_bytes().to_vec();
            body.extend(mac);
            body.resize(4 + 32, 0);
            attribute(&mut settings, IFLA_VF_MAC, &body);
        }
        if let Some(vlan) = to.vlan {
            // struct ifla_vf_vlan: function, VLAN, priority
            let numbers = [vf, u32::from(vlan), 0];
            let body: Vec<u8> = numbers.iter().flat_map(|n| n.to_ne_bytes()).collect();
            attribute(&mut settings, IFLA_VF_VLAN, &body);
        }
        let mut info = Vec::new();
        attribute(&mut info, IFLA_VF_INFO, &settings);
        let mut message = header(RTM_SETLINK, NLM_F_REQUEST | NLM_F_ACK, self.index);
        attribute(&mut message, IFLA_VFINFO_LIST, &info);
        Ok(finish(message))
    }
}

/// What is set for virtual function `index`, from 1.
pub(crate) fn observe(place: &Place, pf: Bdf, index: u32) -> Result<VfNetState, DeviceError> {
    Link::of(place, pf)?.state(index.saturating_sub(1))
}

/// Sets what differs.
pub(crate) fn set(place: &Place, pf: Bdf, index: u32, to: &VfNetState) -> Result<(), DeviceError> {
    if *to == VfNetState::default() {
        return Ok(());
    }
    let link = Link::of(place, pf)?;
    let vf = index.saturating_sub(1);
    let now = link.state(vf)?;
    let differs = VfNetState {
        mac: to.mac.filter(|mac| now.mac != Some(*mac)),
        vlan: to.vlan.filter(|vlan| now.vlan != Some(*vlan)),
    };
    if differs == VfNetState::default() {
        return Ok(());
    }
    let refused = |source| DeviceError::Net {
        link: link.name.clone(),
        what: match (differs.mac, differs.vlan) {
            (Some(_), Some(_)) => "an address and a VLAN",
            (Some(_), None) => "an address",
            _ => "a VLAN",
        }
        .to_owned(),
        index,
        source,
    };
    let message = link.set(vf, &differs).map_err(refused)?;
    let answer = link.send("setting a virtual function's address", &message)?;
    acknowledged(&answer).map_err(refused)?;
    let after = link.state(vf)?;
    let taken = to.mac.is_none_or(|mac| after.mac == Some(mac))
        && to.vlan.is_none_or(|vlan| after.vlan == Some(vlan));
    if taken {
        Ok(())
    } else {
        Err(refused(io::Error::other("it says yes and does not")))
    }
}

fn header(kind: u16, flags: u16, link: i32) -> Vec<u8> {
    // struct nlmsghdr, its length written last, then struct ifinfomsg
    let mut message = vec![0; 4];
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(1_u32.to_ne_bytes());
    message.extend([0; 4]);
    message.extend([0; 4]);
    message.extend(link.to_ne_bytes());
    message.extend([0; 8]);
    message
}

/// `struct rtattr`, padded to four bytes.
fn attribute(to: &mut Vec<u8>, kind: u16, body: &[u8]) {
    let length = u16::try_from(4 + body.len()).expect("messages of this module are small");
    to.extend(length.to_ne_bytes());
    to.extend(kind.to_ne_bytes());
    to.extend(body);
    to.resize(to.len().next_multiple_of(4), 0);
}

fn finish(mut message: Vec<u8>) -> Vec<u8> {
    let length = u32::try_from(message.len()).expect("messages of this module are small");
    message[..4].copy_from_slice(&length.to_ne_bytes());
    message
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not an answer of rtnetlink's")
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// The error number of an acknowledgement; 0 is none.
fn acknowledged(answer: &[u8]) -> io::Result<()> {
    if u16_at(answer, 4) != Some(NLMSG_ERROR) {
        return Err(malformed());
    }
    let number = answer.get(16..20).and_then(|bytes| bytes.try_into().ok());
    match i32::from_ne_bytes(number.ok_or_else(malformed)?) {
        0 => Ok(()),
        number => Err(io::Error::from_raw_os_error(-number)),
    }
}

/// The attributes in a list: kind and body.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        // The two highest bits are flags.
        let kind = u16_at(bytes, 2)? & 0x3fff;
        let body = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    })
}

fn parse(answer: &[u8], vf: u32) -> io::Result<VfNetState> {
    if u16_at(answer, 4) == Some(NLMSG_ERROR) {
        acknowledged(answer)?;
    }
    if u16_at(answer, 4) != Some(RTM_NEWLINK) {
        return Err(malformed());
    }
    let length = u32_at(answer, 0).map_or(0, |length| length as usize);
    let body = answer.get(HEADERS..length).ok_or_else(malformed)?;
    let infos = attributes(body)
        .filter(|(kind, _)| *kind == IFLA_VFINFO_LIST)
        .flat_map(|(_, list)| attributes(list))
        .filter(|(kind, _)| *kind == IFLA_VF_INFO);
    let mut state = VfNetState::default();
    for (kind, body) in infos.flat_map(|(_, info)| attributes(info)) {
        if u32_at(body, 0) != Some(vf) {
            continue;
        }
        match kind {
            IFLA_VF_MAC => state.mac = body.get(4..10).and_then(|mac| mac.try_into().ok()),
            IFLA_VF_VLAN => {
                state.vlan = u32_at(body, 4).and_then(|vlan| u16::try_from(vlan).ok());
            }
            _ => {}
        }
    }
    Ok(state)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    /// What a kernel answers about a link with these functions, with an attribute of another kind first.
    fn answer(vfs: &[(u32, [u8; 6], u16)]) -> Vec<u8> {
        let mut list = Vec::new();
        for (vf, mac, vlan) in vfs {
            let mut info = Vec::new();
            let mut body = vf.to_ne_bytes().to_vec();
            body.extend(mac);
            body.resize(36, 0);
            attribute(&mut info, IFLA_VF_MAC, &body);
            let numbers = [*vf, u32::from(*vlan), 0];
            let body: Vec<u8> = numbers.iter().flat_map(|n| n.to_ne_bytes()).collect();
            attribute(&mut info, IFLA_VF_VLAN, &body);
            attribute(&mut list, IFLA_VF_INFO, &info);
        }
        let mut message = header(RTM_NEWLINK, 0, 3);
        attribute(&mut message, 3, b"eth0\0");
        attribute(&mut message, IFLA_VFINFO_LIST | 0x8000, &list);
        finish(message)
    }

    #[test]
    fn each_function_has_its_own() {
        let macs = [[0; 6], [2, 0, 0, 0, 0, 7]];
        let text = answer(&[(0, macs[0], 0), (1, macs[1], 100)]);
        let second = parse(&text, 1).unwrap();
        assert_eq!((second.mac, second.vlan), (Some(macs[1]), Some(100)));
        assert_eq!(parse(&text, 0).unwrap().mac, Some(macs[0]));
        assert_eq!(parse(&text, 2).unwrap(), VfNetState::default());
        for cut in 0..text.len() {
            // Never a panic, whatever comes.
            let _ = parse(&text[..cut], 1);
        }
    }

    #[test]
    fn a_refusal_has_its_number() {
        let mut refusal = header(NLMSG_ERROR, 0, 0);
        refusal[16..20].copy_from_slice(&(-22_i32).to_ne_bytes());
        let error = acknowledged(&finish(refusal)).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(22));
    }

    #[test]
    fn the_kernel_takes_the_question() {
        let top = tempfile::tempdir().unwrap();
        let place = Place::new(&top.path().join("host"));
        drop(place.host.lock().unwrap());
        let link = Link {
            place: &place,
            pf: Bdf::default(),
            name: "lo".to_owned(),
            index: 1,
        };
        // The loopback device has no virtual functions, and none can be set.
        assert_eq!(link.state(0).unwrap(), VfNetState::default());
        let to = VfNetState {
            mac: Some([2, 0, 0, 0, 0, 1]),
            vlan: None,
        };
        let answer = link.send("test", &link.set(0, &to).unwrap()).unwrap();
        assert!(acknowledged(&answer).is_err());
    }
}
