//! Where the functions sit in the guest.

use super::GuestPlace;
use super::resolve::{Spot, Taken};

/// A place for each, in their order, and the next that is free.
pub(super) fn places(taken: &[Taken]) -> (Vec<GuestPlace>, u8) {
    // The first is kept for a GPU, so that one that comes later moves nothing.
    let mut next = 1u8;
    let mut places: Vec<GuestPlace> = Vec::new();
    let mut function = 0;
    for (at, one) in taken.iter().enumerate() {
        let follows = |offset: usize| {
            taken
                .get(at + offset)
                .is_some_and(|other| other.spot == Spot::Along)
        };
        function = if one.spot == Spot::Along {
            function + 1
        } else {
            0
        };
        let multifunction = function == 0 && follows(1);
        places.push(match (one.spot, places.last().copied()) {
            (Spot::Root(slot), _) => GuestPlace::Root {
                slot,
                function,
                multifunction,
            },
            (Spot::Gpu, _) => GuestPlace::Own {
                index: 0,
                function,
                multifunction,
            },
            (Spot::Along, Some(GuestPlace::Root { slot, .. })) => GuestPlace::Root {
                slot,
                function,
                multifunction,
            },
            (Spot::Along, Some(GuestPlace::Own { index, .. })) => GuestPlace::Own {
                index,
                function,
                multifunction,
            },
            (Spot::Next | Spot::Along, _) => {
                let index = next;
                next = next.saturating_add(1);
                GuestPlace::Own {
                    index,
                    function,
                    multifunction,
                }
            }
        });
    }
    (places, next)
}
