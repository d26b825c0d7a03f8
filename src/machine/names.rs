//! What is derived from names, so that it is the same at every start.

use uuid::Uuid;

use crate::ids::{GuestName, Id, MacAddr};

/// The name space of mvm's version 5 UUIDs. Never to be changed: guests would get new identities.
const SPACE: Uuid = Uuid::from_bytes([
    0x5a, 0x1e, 0x4c, 0x0b, 0x9d, 0x37, 0x4f, 0x62, 0x8c, 0x55, 0x6d, 0x76, 0x6d, 0x20, 0x71, 0x9f,
]);

/// The guest's UUID.
pub(super) fn uuid(guest: &GuestName) -> Uuid {
    Uuid::new_v5(&SPACE, guest.as_str().as_bytes())
}

/// The address of a network card.
pub(super) fn mac(guest: &GuestName, nic: &Id) -> MacAddr {
    let hash = Uuid::new_v5(&uuid(guest), format!("network.{nic}").as_bytes());
    let [a, b, c, ..] = *hash.as_bytes();
    MacAddr::from_hash([a, b, c])
}

/// The mediated device that is made for a guest.
pub(super) fn mdev(guest: &GuestName, id: &Id) -> Uuid {
    Uuid::new_v5(&uuid(guest), format!("mdev.{id}").as_bytes())
}

/// The context id of the guest's virtual socket: 0 to 2 have meanings of their own, and the largest
/// are left to people.
pub(super) fn cid(guest: &GuestName) -> u32 {
    let hash = Uuid::new_v5(&uuid(guest), b"vsock");
    let [a, b, c, d, ..] = *hash.as_bytes();
    let number = u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff;
    number.max(3)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]
    use super::*;

    #[test]
    fn identities_are_the_same_for_ever() {
        let guest: GuestName = "ubuntu".parse().unwrap();
        let lan: Id = "lan".parse().unwrap();
        assert_eq!(
            uuid(&guest).to_string(),
            "f04c34a4-644e-5712-9121-de1857ba000c"
        );
        assert_eq!(mac(&guest, &lan).to_string(), "52:54:00:f9:6f:1d");
        assert_eq!(cid(&guest), 1829389606);
        assert_ne!(mac(&guest, &lan), mac(&"u2".parse().unwrap(), &lan));
    }
}
