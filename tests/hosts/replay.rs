//! Sequences of reads and writes: carried out on a real kernel and recorded, or on the stand-in and compared.
//!
//! A recording is `recorded/NAME.jsonl`, one act with its result on each line, and `recorded/NAME.tree`, the host
//! before the first of them:
//!
//! ```text
//! {"write":"/sys/bus/pci/devices/0000:01:00.0/sriov_numvfs","data":"2","errno":0}
//! {"read":"/sys/bus/pci/devices/0000:01:00.0/sriov_numvfs","text":"2\n"}
//! {"link":"/sys/bus/pci/devices/0000:01:00.1/physfn","to":"../0000:01:00.0"}
//! {"look":"two VFs","differs":["+ sys/bus/pci/devices/0000:01:00.1 -> …", …]}
//! ```
//!
//! `look` tells all that is different from how it was before the first act. `{"wait":500}` is for what a kernel
//! does later than the write that asked for it.

use std::path::Path;
use std::{fs, io};

use serde_json::{Value, json};

/// Carries acts out on the files below `root` and tells what came of each.
pub(crate) fn perform(
    acts: &[Value],
    root: &Path,
    write: &dyn Fn(&Path, &[u8]) -> io::Result<()>,
    look: &dyn Fn(&str) -> Value,
) -> Vec<Value> {
    let at = |path: &Value| root.join(path.as_str().unwrap().trim_start_matches('/'));
    let errno = |e: io::Error| e.raw_os_error().unwrap_or_else(|| panic!("{e}"));
    let mut results = Vec::new();
    for act in acts {
        let result = if let Some(path) = act.get("write") {
            let data = act["data"].as_str().unwrap();
            let done = write(&at(path), data.as_bytes());
            json!({ "write": path, "data": data, "errno": done.map_or_else(errno, |()| 0) })
        } else if let Some(path) = act.get("read") {
            match fs::read(at(path)) {
                Ok(bytes) => json!({ "read": path, "text": String::from_utf8_lossy(&bytes) }),
                Err(e) => json!({ "read": path, "errno": errno(e) }),
            }
        } else if let Some(path) = act.get("link") {
            match fs::read_link(at(path)) {
                Ok(to) => json!({ "link": path, "to": to }),
                Err(e) => json!({ "link": path, "errno": errno(e) }),
            }
        } else if let Some(name) = act.get("look") {
            look(name.as_str().unwrap())
        } else {
            let wait = act["wait"]
                .as_u64()
                .unwrap_or_else(|| panic!("{act} is no act"));
            json!({ "wait": wait })
        };
        results.push(result);
    }
    results
}

/// What is different, without what the stand-in does not follow: values that depend on the device's hardware
/// (configuration space, interrupt numbers), disks that the kernel makes elsewhere than below the device, and
/// whatever else of the host changes as time passes.
pub(crate) fn told(differs: Vec<String>) -> Vec<String> {
    differs
        .into_iter()
        .filter(|line| {
            let path = line[2..].split(" = ").next().unwrap();
            let followed = path.starts_with("sys/") || path.starts_with("dev/vfio");
            let own = ["/config", "/irq"].iter().any(|end| path.ends_with(end));
            // Interfaces and disks are numbered anew.
            let numbered = ["IFINDEX=", "DISKSEQ="]
                .iter()
                .any(|key| line.contains(key));
            // The firmware has names for some addresses, used or not.
            let firmware = path.contains("/firmware_node");
            followed && !own && !firmware && !numbered && !line.contains("nvme-subsys")
        })
        // Whose a node is, and its mode, are not what the recordings are about.
        .map(|line| match line.split_once("\", ") {
            Some((node, _)) if node[2..].starts_with("dev/") => format!("{node}\""),
            _ => line,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Host, Tree, difference, folder, snapshot};
    use super::*;

    /// The stand-in does what the kernel did, act by act, and ends with the same files.
    #[test]
    fn the_stand_in_does_what_the_kernel_did() {
        let recorded = folder().join("recorded");
        let mut count = 0;
        for entry in fs::read_dir(&recorded).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_none_or(|kind| kind != "jsonl") {
                continue;
            }
            count += 1;
            let text = fs::read_to_string(&path).unwrap();
            let acts: Vec<Value> = text
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            let host = Host::of(&Tree::read(&path.with_extension("tree")));
            let problems = compare(&host, &acts);
            assert!(
                problems.is_empty(),
                "{}:\n{}",
                path.display(),
                problems.join("\n")
            );
        }
        assert!(count > 0, "nothing is recorded");
    }

    fn compare(host: &Host, acts: &[Value]) -> Vec<String> {
        let before = snapshot(host.root());
        let kernel = host.kernel();
        let results = perform(
            acts,
            host.root(),
            &|path, data| kernel.write(path, data),
            &|name| json!({ "look": name, "differs": told(difference(&before, &snapshot(host.root()))) }),
        );
        let lines = |value: &Value| -> Vec<String> {
            let list = value["differs"].as_array().unwrap();
            told(
                list.iter()
                    .map(|l| l.as_str().unwrap().to_owned())
                    .collect(),
            )
        };
        let mut problems = Vec::new();
        for (number, (kernel, standin)) in acts.iter().zip(&results).enumerate() {
            if let Some(name) = kernel.get("look") {
                for line in difference(&lines(kernel), &lines(standin)) {
                    problems.push(format!(
                        "{}: look {name}: (- kernel, + stand-in) {line}",
                        number + 1
                    ));
                }
            } else if kernel != standin {
                problems.push(format!(
                    "{}: the kernel {kernel}, the stand-in {standin}",
                    number + 1
                ));
            }
        }
        problems
    }
}
