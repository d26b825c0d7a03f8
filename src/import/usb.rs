//! USB controllers: a guest of mvm has one, of the kind that the guest knows.

use super::address;
use super::devices::{count, single};
use super::draft::Draft;
use super::reader::El;

/// A controller of mvm's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Model {
    Xhci,
    NecXhci,
    Ehci,
    Uhci,
}

impl Model {
    /// What takes the place of libvirt's; `None` for what mvm has nothing like.
    fn of(one: El<'_>, out: &Draft) -> Option<Self> {
        Some(match one.peek("model") {
            Some("qemu-xhci") => Self::Xhci,
            Some("nec-xhci") => Self::NecXhci,
            Some("ehci" | "ich9-ehci1") => Self::Ehci,
            Some(
                "piix3-uhci" | "piix4-uhci" | "vt82c686b-uhci" | "ich9-uhci1" | "ich9-uhci2"
                | "ich9-uhci3" | "ich9-uhci4" | "ich9-uhci5" | "ich9-uhci6",
            ) => Self::Uhci,
            // As libvirt chooses for the old board where the domain does not say.
            None if is_i440fx(out) => Self::Uhci,
            None => Self::Xhci,
            Some(_) => return None,
        })
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Xhci => "xhci",
            Self::NecXhci => "nec-xhci",
            Self::Ehci => "ehci",
            Self::Uhci => "uhci",
        }
    }

    /// How many devices it has room for, where that cannot be said.
    const fn ports(self) -> Option<usize> {
        match self {
            Self::Xhci | Self::NecXhci => None,
            Self::Ehci => Some(6),
            Self::Uhci => Some(2),
        }
    }
}

fn is_i440fx(out: &Draft) -> bool {
    let name = out.get("machine", "type").and_then(toml::Value::as_str);
    name.is_some_and(|name| name == "pc" || name.starts_with("pc-i440fx"))
}

/// A UHCI beside an EHCI, for the slow devices on the ports of that.
fn is_companion(one: El<'_>) -> bool {
    one.all().any(|part| part.name() == "master")
}

/// The domain's USB controllers; `devices` is all that the domain has.
pub(super) fn controllers(all: &[El<'_>], devices: El<'_>, out: &mut Draft) {
    let fits = |one: &El<'_>| one.peek("model") != Some("none") && Model::of(*one, out).is_some();
    let whole = all.iter().position(|one| fits(one) && !is_companion(*one));
    let main = whole.or_else(|| all.iter().position(fits));
    let ehci = main.and_then(|at| Model::of(*all.get(at)?, out)) == Some(Model::Ehci);
    for (at, one) in all.iter().enumerate() {
        if Some(at) == main {
            continue;
        }
        if one.peek("model") == Some("none") {
            out.fine(*one, "mvm makes one where something is on it");
        } else if main.is_none() {
            let why = "mvm has no such controller; where something is on it, it makes an xHCI (`usb-controller.model`)";
            out.left(*one, why);
        } else if is_companion(*one) && ehci {
            let why = "mvm's EHCI has no companions: devices of the host that know USB 1 only want \
                       `usb-controller.model = \"xhci\"`, or `\"uhci\"` where the guest has no driver for that";
            out.left(*one, why);
        } else {
            out.left(*one, "mvm's guests have one USB controller");
        }
    }
    let Some(one) = main.and_then(|main| all.get(main)) else {
        return;
    };
    if let Some(asked) = Model::of(*one, out) {
        self::main(*one, asked, on_usb(devices), out);
    }
}

/// The one that the guest gets, with so many devices on it.
fn main(one: El<'_>, asked: Model, many: usize, out: &mut Draft) {
    let _ = (one.number("index"), one.attr("model"));
    if let Some(companion) = one.child("master") {
        companion.whole();
    }
    single(one, "usb", Some("mvm-usb"), out);
    let roomy = |model: &Model| model.ports().is_none_or(|ports| ports >= many);
    let bigger = [asked, Model::Ehci, Model::Xhci];
    let model = bigger.into_iter().find(roomy).unwrap_or(Model::Xhci);
    if let Some(ports) = asked.ports().filter(|_| model != asked) {
        out.told(
            one,
            format!(
                "mvm's `{}` has {ports} ports and no hubs, and {many} devices are on it: it is `{}`, for which the guest \
                 needs a driver",
                asked.word(),
                model.word()
            ),
        );
    }
    out.put(one, "usb-controller", "model", model.word());
    if model.ports().is_some() {
        out.left_attr(one, "ports", "the number of its ports is fixed");
    } else if let Some(ports) = count(one, "ports") {
        out.put(one, "usb-controller", "ports", ports);
    }
    address::place(one, None, out);
}

/// How many devices of the domain are on USB.
fn on_usb(devices: El<'_>) -> usize {
    let is_usb = |one: &El<'_>| {
        let inner = |name: &str, attribute: &str| {
            let part = one.all().find(|part| part.name() == name);
            part.and_then(|part| part.peek(attribute))
        };
        match one.name() {
            "input" => match (one.peek("type"), one.peek("bus")) {
                (Some("tablet"), None) => true,
                (_, bus) => bus == Some("usb"),
            },
            "disk" => inner("target", "bus") == Some("usb"),
            "hostdev" => one.peek("type") == Some("usb"),
            "sound" => one.peek("model") == Some("usb"),
            "redirdev" => true,
            _ => false,
        }
    };
    devices.all().filter(is_usb).count()
}
