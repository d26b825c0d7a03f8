//! Short words for long names.

use crate::host::DeviceFacts;
use crate::host::devices::{HostUse, PciDevice, WhyNot};

/// The headings of the overview, in its order, with the base classes below each.
pub(super) const SECTIONS: [(&str, &[u8]); 5] = [
    ("GPU", &[0x03]),
    ("NETWORK", &[0x02, 0x0d]),
    ("STORAGE", &[0x01]),
    ("SOUND", &[0x04]),
    // Whatever is in no other.
    ("OTHER PCI", &[]),
];

/// The section that a function is in.
pub(super) fn section(device: &PciDevice) -> usize {
    let base = device.base_class();
    let place = SECTIONS.iter().position(|(_, bases)| bases.contains(&base));
    place.unwrap_or(SECTIONS.len() - 1)
}

/// Words that end makers' names and tell nothing.
const FIRM: &[&str] = &[
    "corporation",
    "corp",
    "inc",
    "ltd",
    "limited",
    "co",
    "company",
    "llc",
    "gmbh",
    "ag",
    "sa",
    "bv",
    "technologies",
    "technology",
    "electronics",
    "semiconductor",
    "semiconductors",
    "systems",
    "communications",
    "international",
    "group",
];

/// A maker's name as people say it: `Intel` for `Intel Corporation`, `AMD` for
/// `Advanced Micro Devices, Inc. [AMD]`.
pub(super) fn maker(name: &str) -> String {
    if let Some((_, short)) = name
        .strip_suffix(']')
        .and_then(|name| name.rsplit_once('['))
    {
        return short.to_owned();
    }
    let mut words: Vec<&str> = name.split_whitespace().collect();
    while words.len() > 1 {
        let last = words.last().map_or("", |last| last);
        let bare = last
            .trim_matches(['.', ','])
            .replace('.', "")
            .to_lowercase();
        if !FIRM.contains(&bare.as_str()) {
            break;
        }
        words.pop();
    }
    words.join(" ").trim_end_matches(',').to_owned()
}

/// A function in a few words: its maker and its name, with the class where the name is none.
pub(super) fn name(device: &PciDevice) -> String {
    let names = &device.names;
    let maker = maker(&names.vendor);
    if names.device == format!("Device {:04x}", device.device) {
        return format!("{maker} {} {:04x}", names.class, device.device);
    }
    format!("{maker} {}", names.device)
}

/// Whether a guest can have it, in the last column.
pub(super) fn verdict(facts: &DeviceFacts, why: &[WhyNot]) -> String {
    let Some(first) = why.first() else {
        return "yes".to_owned();
    };
    // Who has it is what people look for first; then what the host does with it.
    let rank = |why: &WhyNot| match why {
        WhyNot::Guest { .. } | WhyNot::Damaged { .. } => 0,
        WhyNot::Silent | WhyNot::UnderWay(_) => 1,
        WhyNot::Host(_) => 2,
        _ => 3,
    };
    let shown = why.iter().min_by_key(|why| rank(why)).unwrap_or(first);
    let more = why.len() - 1;
    let text = brief(facts, shown);
    if more > 0 {
        format!("{text}, +{more}")
    } else {
        text
    }
}

fn brief(facts: &DeviceFacts, why: &WhyNot) -> String {
    match why {
        WhyNot::Bridge => "no".to_owned(),
        WhyNot::NoIommu => "no IOMMU".to_owned(),
        WhyNot::NoGroup => "no IOMMU group".to_owned(),
        WhyNot::Silent => "stuck".to_owned(),
        WhyNot::UnderWay(_) => "busy".to_owned(),
        WhyNot::Damaged { .. } => "damaged lease".to_owned(),
        WhyNot::NoVfio => "no vfio-pci".to_owned(),
        WhyNot::Group { members, .. } => match members.as_slice() {
            [(bdf, _)] => format!("with {}", facts.name(*bdf)),
            more => format!("with {} others", more.len()),
        },
        WhyNot::Host(host) => match host {
            HostUse::Mounted { at, .. } => format!("host: {at}"),
            HostUse::Swap { .. } => "host: swap".to_owned(),
            HostUse::Held { by, .. } => format!("host: {by}"),
            HostUse::DefaultRoute { .. } => "host: default route".to_owned(),
            HostUse::BridgeMember { bridge, .. } => format!("host: bridge {bridge}"),
            HostUse::BondMember { bond, .. } => format!("host: {bond}"),
            HostUse::ConsoleGpu { .. } => "host: console".to_owned(),
            HostUse::LiveVfs { .. } => "only its VFs".to_owned(),
            HostUse::LiveMdevs { .. } => "only its mdevs".to_owned(),
        },
        WhyNot::Guest {
            guest,
            device,
            gone,
            ..
        } => match (device, gone) {
            (_, true) => format!("left by {guest}"),
            (None, _) => format!("guest {guest}"),
            (Some(_), _) => format!("guest {guest}, in part"),
        },
    }
}

/// The text in at most so many columns.
pub(super) fn fit(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let cut: String = text.chars().take(columns.saturating_sub(1)).collect();
    format!("{}…", cut.trim_end())
}

/// A number of things.
pub(super) fn plural(count: u32, one: &str) -> String {
    if count == 1 {
        format!("1 {one}")
    } else {
        format!("{count} {one}s")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn makers_are_named_as_people_say() {
        for (long, short) in [
            ("Intel Corporation", "Intel"),
            ("Advanced Micro Devices, Inc. [AMD/ATI]", "AMD/ATI"),
            ("Samsung Electronics Co Ltd", "Samsung"),
            ("Realtek Semiconductor Co., Ltd.", "Realtek"),
            ("Red Hat, Inc.", "Red Hat"),
            ("Mellanox Technologies", "Mellanox"),
            ("Systems", "Systems"),
        ] {
            assert_eq!(maker(long), short);
        }
    }

    #[test]
    fn long_names_are_cut_at_characters() {
        assert_eq!(fit("Größe", 5), "Größe");
        assert_eq!(fit("Größen", 5), "Größ…");
        assert_eq!(fit("a bc", 3), "a…");
    }
}
