//! Every key of the profile schema does something: each is held against what is done without it.
//!
//! `effects/*.toml` say how, one block for keys that make sense in the same profile:
//!
//! ```toml
//! [[effect]]
//! host = "server-nics"                  # devices of a host of tests/hosts, where there have to be any
//! base.disk.x.file.path = "a.img"       # the profile that the keys are laid over, by itself the same guest
//! set.disk.x = { cache = "none" }       # the keys, each laid over the base alone
//! refused = "the host uses"             # where there is no such guest without the key: what is said then
//! ```
//!
//! A key is shown where the command line of QEMU or the steps of the plan differ with it, and not only with the table
//! that it is in. `effects/named.toml` names tests for the keys of which neither can tell, as only the supervisor or a
//! command looks at them.
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;
use toml::Table;

use super::build;
use super::step::Step;
use crate::dirs::Dirs;
use crate::host::devices::{DeviceFacts, HostUse, MdevParent};
use crate::host::memory::HugepagePool;
use crate::host::qemu::{Properties, PropertyKind};
use crate::host::users::{Asked, Ids};
use crate::host::{HostFacts, KvmState, QemuFacts, Roots, Session, Sysfs, TpmFacts};
use crate::hosts::Host;
use crate::machine::testing::{self, dirs, facts, images, resolve_all};
use crate::profile::{Choices, load, schema_json};
use crate::qemu::command_line;

/// Where the keys are that a command line or a step shows, and those that it does not.
const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/plan/effects");
const NAMED: &str = "named.toml";

/// Keys of one profile.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Effect {
    host: Option<String>,
    #[serde(default)]
    base: Table,
    set: Table,
    refused: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    effect: Vec<Effect>,
}

/// The parts of a key, `*` for a name.
type Key = Vec<String>;

/// Every key that the schema has: tables only where they have no keys of their own.
fn keys(schema: &Value) -> BTreeSet<Key> {
    fn walk(schema: &Value, of: &Value, path: &mut Key, found: &mut BTreeSet<Key>) {
        let name = of["allOf"][0]["$ref"].as_str().or(of["$ref"].as_str());
        let of = name.map_or(of, |name| {
            &schema["definitions"][name.rsplit('/').next().unwrap()]
        });
        let (keys, names) = (&of["properties"], &of["additionalProperties"]);
        let mut below = |key: &str, of: &Value| {
            path.push(key.to_owned());
            // A variant is a file of its own but for `when`.
            let of = match path.as_slice() {
                [variant, star] if variant == "variant" && star == "*" => {
                    serde_json::json!({ "properties": {
                        "when": schema["definitions"]["Variant"]["properties"]["when"]
                    }})
                }
                _ => of.clone(),
            };
            walk(schema, &of, path, found);
            path.pop();
        };
        match keys.as_object().filter(|keys| !keys.is_empty()) {
            Some(keys) => keys.iter().for_each(|(key, of)| below(key, of)),
            None if names.is_object() => below("*", names),
            None => {
                found.insert(path.clone());
            }
        }
    }
    let mut found = BTreeSet::new();
    walk(schema, schema, &mut Vec::new(), &mut found);
    found
}

/// The key of the schema that a path in a profile is, if it is one.
fn key_of<'a>(keys: &'a BTreeSet<Key>, path: &[String]) -> Option<&'a Key> {
    let fits = |(part, own): (&String, &String)| part == "*" || part == own;
    keys.iter()
        .find(|key| key.len() == path.len() && key.iter().zip(path).all(fits))
}

/// The values that a table sets, each with its path; an empty table is a value.
fn leaves(table: &Table, above: &[String]) -> Vec<(Key, toml::Value)> {
    let below = table.iter().flat_map(|(key, value)| {
        let path = [above, std::slice::from_ref(key)].concat();
        match value {
            toml::Value::Table(table) if !table.is_empty() => leaves(table, &path),
            value => vec![(path, value.clone())],
        }
    });
    below.collect()
}

/// A profile that sets one value.
fn alone(path: &[String], value: toml::Value) -> Table {
    let (last, above) = path.split_last().unwrap();
    let own = Table::from_iter([(last.clone(), value)]);
    above.iter().rev().fold(own, |table, key| {
        Table::from_iter([(key.clone(), toml::Value::Table(table))])
    })
}

/// A host on which the keys mean something: with KVM, a TPM, a session, huge pages, and root to start guests.
fn host(name: Option<&str>) -> HostFacts {
    let mut facts = facts();
    facts.kvm.state = KvmState::Healthy;
    facts.memory.hugepages = vec![HugepagePool {
        size: 2 << 20,
        total: 1024,
        free: 1024,
    }];
    facts.dmi.texts = BTreeMap::from([("sys_vendor".to_owned(), "Maker".to_owned())]);
    facts.tpm = Some(TpmFacts {
        path: "/dev/tpm1".into(),
        why_not: None,
        version: Some(2),
        cancel: None,
    });
    facts.users.uid = 0;
    facts.users.asked = Some(Asked {
        name: "qemu".to_owned(),
        found: Some(Ids {
            uid: 64_055,
            gid: 64_055,
            groups: Vec::new(),
        }),
    });
    let session = |uid, user: &str, known| Session {
        uid,
        user: user.to_owned(),
        x11: Some(format!(":{uid}")),
        runtime: Some(format!("/run/user/{uid}").into()),
        pulse: Some(format!("/run/user/{uid}/pulse/native").into()),
        known,
        ..Session::default()
    };
    // Root has sound, and no window.
    let root = Session {
        x11: None,
        ..session(0, "root", false)
    };
    facts.sessions = vec![
        session(1000, "ann", true),
        session(1001, "bob", false),
        root,
    ];
    if let Some(name) = name {
        let host = Host::new(name);
        facts.devices = DeviceFacts::read(&Roots {
            sysfs: Sysfs::at(host.sys()),
            root: host.root().to_owned(),
            cache: None,
            user_config: None,
            around_devices: Some(host.root().to_owned()),
            leases: host.root().join("run/mvm-host"),
        });
        // What no recorded host has: devices of each kind that carry its network, a second maker of mediated ones.
        let route = |link: &str| HostUse::DefaultRoute {
            link: link.to_owned(),
        };
        let devices = &mut facts.devices;
        for device in &mut devices.pci {
            let carries = device.bdf.to_string() == "0000:03:00.0";
            device.used_by_host.extend(carries.then(|| route("eth3")));
        }
        for device in &mut devices.usb {
            let carries = device.port.as_str() == "1-7.2";
            device.used_by_host.extend(carries.then(|| route("usb0")));
        }
        let second = devices.mdev_parents.first().map(|first| MdevParent {
            name: "mdpy".to_owned(),
            bdf: None,
            types: first.types.clone(),
        });
        devices.mdev_parents.extend(second);
        facts.devices.vfio.iommufd = true;
        facts.devices.vfio.container = true;
    }
    if let Some(QemuFacts::Found(caps)) = facts.qemu.get_mut(&facts.arch) {
        let objects = testing::caps(facts.arch).objects;
        caps.objects = objects.iter().chain(["iommufd"]).collect();
        let vfio = [
            "iommufd",
            "sysfsdev",
            "x-vga",
            "x-igd-opregion",
            "x-igd-gms",
            "display",
            "ramfb",
        ];
        let vfio = [(PropertyKind::Text, vfio.into_iter().collect())];
        caps.properties.insert(
            "vfio-pci".to_owned(),
            Properties(vfio.into_iter().collect()),
        );
    }
    facts
}

/// Loads a profile as it is loaded for a start, and says what that start would do.
fn done(dirs: &Dirs, facts: &HostFacts, name: &str) -> Result<String, String> {
    let told = |error: &dyn std::error::Error| format!("{error}: {:?}", error.source());
    let layer = load(dirs, name, &Choices::default())
        .map_err(|error| told(&error))?
        .layer;
    let machine = resolve_all(&layer, facts, &images(&layer, dirs), dirs);
    let machine = machine.map_err(|error| told(&error))?;
    let line = command_line(&machine);
    let plan = build::build(machine, line, &facts.links);
    // That places are kept shows no more than the line that they are on.
    let places = |step: &&Step| !matches!(step, Step::KeepPlaces { .. });
    let steps: Vec<&Step> = plan.steps.iter().filter(places).collect();
    Ok(format!("{:#?}\n{steps:#?}", plan.command))
}

/// Tries each key of a file; those that are shown, and what is wrong.
fn tried(keys: &BTreeSet<Key>, path: &Path) -> (BTreeSet<Key>, Vec<String>) {
    let file: File = toml::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    let (mut shown, mut wrong) = (BTreeSet::new(), Vec::new());
    let home = tempfile::Builder::new().prefix("mvm").tempdir().unwrap();
    // Profiles of this test's own, and all else where the made-up host has it.
    let dirs = Dirs {
        config: home.path().to_owned(),
        system_config: home.path().to_owned(),
        ..dirs()
    };
    let profiles = home.path().join("profiles");
    fs::create_dir_all(&profiles).unwrap();
    let write = |name: &str, table: &Table| {
        let text = toml::to_string(table).unwrap();
        fs::write(profiles.join(format!("{name}.toml")), text).unwrap();
    };
    for effect in file.effect {
        let facts = host(effect.host.as_deref());
        write("below", &effect.base);
        let over = |mut table: Table| {
            table.insert("extends".to_owned(), vec!["below"].into());
            write("with", &table);
            done(&dirs, &facts, "with")
        };
        let base = over(Table::new());
        let refused = |error: &str| {
            effect
                .refused
                .as_ref()
                .is_some_and(|words| error.contains(words))
        };
        for (path, value) in leaves(&effect.set, &[]) {
            let told = format!("{} = {value}", path.join("."));
            let Some(key) = key_of(keys, &path) else {
                wrong.push(format!(
                    "{told}: the schema has no such key (any more): take it out"
                ));
                continue;
            };
            // The table alone may do something; where it cannot be alone, the key is what makes it.
            let table = match path.split_last() {
                Some((_, above)) if !above.is_empty() => over(alone(above, Table::new().into())),
                _ => base.clone(),
            };
            let without = table.or(base.clone());
            let differs = match (&without, over(alone(&path, value)), &effect.refused) {
                (Err(error), Ok(_), Some(_)) if refused(error) => Ok(true),
                (without, _, Some(words)) => Err(format!(
                    "its base is not refused with the words {words:?}: {without:?}"
                )),
                (Err(error), _, None) => Err(format!("its base is wrong: {error}")),
                (_, Err(error), _) => Err(error),
                (Ok(without), Ok(with), _) => Ok(*without != with),
            };
            match differs {
                Ok(true) => drop(shown.insert(key.clone())),
                Ok(false) => wrong.push(format!(
                    "{told}: neither QEMU's command line nor a step differs with it"
                )),
                Err(error) => wrong.push(format!("{told}: {error}")),
            }
        }
    }
    (shown, wrong)
}

/// The sources of the project's code and tests.
fn sources() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut open: Vec<PathBuf> = vec![root.join("src"), root.join("tests")];
    let mut found = Vec::new();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(
                fs::read_dir(&path)
                    .unwrap()
                    .map(|entry| entry.unwrap().path()),
            );
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            found.push(fs::read_to_string(&path).unwrap());
        }
    }
    found
}

/// Whether one of the sources has a test of that name, and says the word.
fn shows(sources: &[String], test: &str, word: &str) -> bool {
    let head = format!("fn {test}(");
    sources.iter().any(|text| {
        // Attributes stand between `#[test]` and the function.
        let above = text.split_once(&head).map(|(above, _)| above);
        let marks = above.and_then(|above| above.rsplit("\n\n").next());
        marks.is_some_and(|marks| marks.contains("#[test]")) && text.contains(word)
    })
}

#[test]
fn effects_of_all_keys_are_shown() {
    let schema: Value = serde_json::from_str(schema_json()).unwrap();
    let keys = keys(&schema);
    assert!(keys.len() > 400, "{} keys are not all", keys.len());
    let mut files: Vec<PathBuf> = fs::read_dir(FOLDER)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.ends_with(NAMED))
        .collect();
    files.sort();
    let (mut shown, mut wrong) = (BTreeSet::new(), Vec::new());
    for path in files {
        let (some, bad) = tried(&keys, &path);
        shown.extend(some);
        let name = path.file_name().unwrap_or_default().display().to_string();
        wrong.extend(bad.into_iter().map(|bad| format!("{name}: {bad}")));
    }

    let text = fs::read_to_string(Path::new(FOLDER).join(NAMED)).unwrap();
    let named: BTreeMap<String, String> = toml::from_str(&text).unwrap();
    let sources = sources();
    for (key, test) in &named {
        let path: Key = key.split('.').map(str::to_owned).collect();
        if !keys.contains(&path) {
            wrong.push(format!(
                "{NAMED}: {key}: the schema has no such key (any more): take it out"
            ));
        } else if shown.contains(&path) {
            wrong.push(format!("{NAMED}: {key}: the plan shows it: take it out"));
        } else if !shows(
            &sources,
            test,
            path.iter().rev().find(|part| *part != "*").unwrap(),
        ) {
            wrong.push(format!(
                "{NAMED}: {key}: there is no test {test} in a source that says this key"
            ));
        }
    }
    for key in &keys {
        let told = key.join(".");
        if !shown.contains(key) && !named.contains_key(&told) {
            wrong.push(format!(
                "{told}: nothing shows what it does: set it in a block of src/plan/effects/*.toml, or, where neither \
                 QEMU's command line nor a step can differ, name the test that shows it in {NAMED}"
            ));
        }
    }
    eprintln!(
        "{} keys, {} of them shown by plans, {} by tests",
        keys.len(),
        shown.len(),
        named.len()
    );
    assert!(
        wrong.is_empty(),
        "{} shown by plan, {} by tests\n{}",
        shown.len(),
        named.len(),
        wrong.join("\n")
    );
}

#[test]
fn effects_that_are_not_there_are_not_found() {
    let schema: Value = serde_json::from_str(schema_json()).unwrap();
    let keys = keys(&schema);
    let key = |text: &str| -> Key { text.split('.').map(str::to_owned).collect() };
    for there in [
        "cpu.count",
        "disk.*.none",
        "variant.*.when.gpu",
        "override.*.*",
        "gpu.provision.ggtt-quota",
    ] {
        assert!(keys.contains(&key(there)), "{there}");
    }
    for table in ["cpu", "disk", "disk.*", "variant.*.cpu.count"] {
        assert!(!keys.contains(&key(table)), "{table}");
    }
    let folder = tempfile::Builder::new().prefix("mvm").tempdir().unwrap();
    let path = folder.path().join("wrong.toml");
    fs::write(
        &path,
        "[[effect]]\nset.autostart.order = 3\nset.cpu.cuont = 2\nset.cpu.cores = 2\nset.display.vnc.port = 1",
    )
    .unwrap();
    let (shown, wrong) = tried(&keys, &path);
    assert_eq!(shown, BTreeSet::from([key("cpu.cores")]));
    assert_eq!(wrong.len(), 3, "{wrong:?}");
    assert!(
        wrong[0].contains("neither QEMU's command line nor a step"),
        "{wrong:?}"
    );
    assert!(wrong[1].contains("no such key"), "{wrong:?}");
    assert!(wrong[2].contains("`display.vnc.port` is 1"), "{wrong:?}");

    let text = ["#[test]\nfn first() { order }\n\nfn second() {}\n".to_owned()];
    assert!(shows(&text, "first", "order"));
    assert!(
        !shows(&text, "second", "order")
            && !shows(&text, "first", "delay")
            && !shows(&text, "third", "order")
    );
}
