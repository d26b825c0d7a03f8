//! The processors: `<vcpu>` and `<cpu>`.

use toml::{Table, Value};

use super::cpuset::set;
use super::draft::{Draft, bare};
use super::reader::{El, short};

/// Reads both and gives the guest's NUMA cells back, which are memory as well.
pub(super) fn cpu<'a>(root: El<'a>, out: &mut Draft) -> Option<El<'a>> {
    let count = count(root, out);
    let Some(cpu) = root.child("cpu") else {
        default_model(root, out);
        return None;
    };
    model(cpu, out);
    topology(cpu, count, out);
    features(cpu, out);
    if let Some(cache) = cpu.child("cache") {
        let word = cache.read("mode", |mode| match mode {
            "passthrough" => Some("passthrough"),
            "emulate" => Some("emulate"),
            "disable" => Some("none"),
            _ => None,
        });
        if let Some(word) = word {
            out.put(cache, "cpu", "cache", word);
        }
    }
    if let Some(bits) = cpu.child("maxphysaddr") {
        let limit = bits
            .number("limit")
            .and_then(|limit| i64::try_from(limit).ok());
        match (bits.attr("mode"), limit) {
            (Some("passthrough"), Some(limit)) => out.put(bits, "cpu", "phys-bits-limit", limit),
            (Some("passthrough"), None) if bits.peek("limit").is_none() => out.fine(
                bits,
                "as many bits as the host has, which the model `host` gives",
            ),
            _ => out.left(
                bits,
                "mvm takes the host's number of address bits and can only limit it",
            ),
        }
    }
    cpu.child("numa")
}

/// `<vcpu>`: how many there are at the start.
fn count(root: El<'_>, out: &mut Draft) -> Option<i64> {
    if let Some(each) = root.child("vcpus") {
        out.left(
            each,
            "mvm adds no processors to a running guest, and takes none away",
        );
    }
    let vcpu = root.child("vcpu")?;
    let Some(most) = vcpu.value(|text| text.parse::<i64>().ok().filter(|most| *most > 0)) else {
        out.left(
            vcpu,
            "it is no number of processors: the guest has as many as its topology says, else one",
        );
        return None;
    };
    let _libvirts_word_for_by_hand = vcpu.is("placement", "static");
    let now = vcpu
        .number("current")
        .and_then(|now| i64::try_from(now).ok());
    let count = now.unwrap_or(most);
    if count != most {
        out.told(
            vcpu,
            format!("mvm adds no processors to a running guest: it has the {count} of the start"),
        );
    }
    out.put(vcpu, "cpu", "count", count);
    if let Some(set) = vcpu.read("cpuset", set) {
        out.put(vcpu, "cpu", "host-cpus", set);
    }
    Some(count)
}

fn model(cpu: El<'_>, out: &mut Draft) {
    for policy in ["check", "match"] {
        // What libvirt compares before a start, and nothing that the guest sees.
        let _ = cpu.attr(policy);
    }
    match cpu.attr("mode") {
        Some("host-passthrough") => out.fine.push(super::Told {
            line: cpu.line(),
            what: "<cpu> mode='host-passthrough'".to_owned(),
            why: "mvm's default".to_owned(),
        }),
        Some("host-model") => {
            if let Some(fallback) = cpu.child("model") {
                // What libvirt would take instead; the text is that of a running guest.
                let _ = (fallback.attr("fallback"), fallback.text());
            }
            out.told(cpu, "libvirt makes a model near to the host's; mvm gives the host's own, which has more");
        }
        Some("maximum") => out.put(cpu, "cpu", "model", "max"),
        Some("custom") | None => match cpu.child("model") {
            Some(model) => {
                let _whether_another_may_take_its_place = model.attr("fallback");
                out.put(model, "cpu", "model", model.text());
            }
            None => default_model(cpu, out),
        },
        Some(other) => out.told(cpu, format!("mvm knows no `mode='{}'`", short(other))),
    }
    if let Some(on) = cpu.flag("migratable") {
        out.put(cpu, "cpu", "migratable", on);
    }
    if let Some(vendor) = cpu.child("vendor") {
        out.fine(vendor, "what libvirt asks of the host before a start");
    }
}

/// Without a model libvirt leaves the choice to QEMU, and a guest that has seen one is to see it again.
fn default_model(from: El<'_>, out: &mut Draft) {
    if out.arm {
        out.told(
            from,
            "no processor is named, and QEMU's own is a 32-bit one; mvm gives the host's",
        );
    } else {
        out.say("cpu", "The domain names no model, and this is QEMU's own. `auto` is the host's, and much faster.");
        out.put(from, "cpu", "model", "qemu64");
    }
}

fn topology(cpu: El<'_>, count: Option<i64>, out: &mut Draft) {
    let Some(topology) = cpu.child("topology") else {
        return;
    };
    let parts = ["sockets", "dies", "clusters", "cores", "threads"];
    let parts = parts.map(|part| (part, topology.number(part)));
    // Of more than a number can say none is as many as the guest has.
    let all = parts
        .iter()
        .try_fold(1u64, |all, (_, many)| all.checked_mul(many.unwrap_or(1)));
    if count.is_some_and(|count| u64::try_from(count).ok() != all) {
        let all = all.map_or_else(|| "too many".to_owned(), |all| all.to_string());
        out.told(
            topology,
            format!("it is of {all} processors, and the guest starts with another number"),
        );
        return;
    }
    for (part, many) in parts {
        let Some(many) = many.and_then(|many| i64::try_from(many).ok()) else {
            continue;
        };
        if many > 1 || !matches!(part, "dies" | "clusters") {
            out.put(topology, "cpu", part, many);
        }
    }
}

fn features(cpu: El<'_>, out: &mut Draft) {
    let mut all = Table::new();
    let mut first = None;
    for feature in cpu.children("feature") {
        let Some(name) = feature.peek("name") else {
            out.left(feature, "it names no feature");
            continue;
        };
        match feature.attr("policy") {
            None | Some("require" | "force") => {
                all.insert(bare(name), Value::Boolean(true));
            }
            Some("disable" | "forbid") => {
                all.insert(bare(name), Value::Boolean(false));
            }
            _ => {
                out.left(feature, "mvm's features are on or off");
                continue;
            }
        }
        feature.attr("name");
        first.get_or_insert(feature);
    }
    if let Some(first) = first {
        out.put(first, "cpu", "features", all);
    }
}
