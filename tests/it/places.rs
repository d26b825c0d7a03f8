//! Where a guest sees its devices, from start to start.

use std::collections::BTreeMap;

use crate::env::TestEnv;

/// Prints `NAME PATH` for each disk with a serial number and each card by its address.
const LOOK: &str = r#"
for n in /sys/class/net/*/device; do echo "$(cat ${n%/device}/address) $(readlink -f $n)"; done
for b in /sys/block/vd* /sys/block/sd*; do
    s=$(cat $b/serial 2>/dev/null) && echo "$s $(readlink -f $b/device)"
done
for p in /sys/bus/pci/devices/*; do
    echo "$(cat $p/vendor):$(cat $p/device):$(cat $p/class) $(readlink -f $p)"
done
"#;

/// Starts the guest, and tells where it sees what: PCI addresses by serial number and by MAC address, and those of
/// all functions by what they are.
fn start(env: &TestEnv, board: &str, devices: &[&str]) -> BTreeMap<String, Vec<String>> {
    let text: String = devices
        .iter()
        .map(|name| match name.split_once('-') {
            Some(("disk", id)) => format!(
                "[disk.{id}]\nfile = {{ path = \"{id}.raw\", format = \"raw\" }}\nserial = \"{id}\"\n"
            ),
            Some(("card", id)) => format!("[network.{id}]\nuser = {{}}\n"),
            Some(("shmem", id)) => format!("[shmem.{id}]\nsize = \"1M\"\n"),
            Some(("share", id)) => format!("[share.{id}]\npath = \"/srv\"\n"),
            _ => format!("[{name}]\n"),
        })
        .collect();
    let head = format!("extends = [\"demo\"]\n[machine]\ntype = \"{board}\"\n");
    env.write("config/machines/g.toml", head + &text);
    env.mvm("start g").exits(0);
    env.mvm("wait g --for agent --timeout 2m").exits(0);
    let said = env.run(&["exec", "g", "--", "sh", "-c", LOOK]).exits(0);
    env.mvm("kill g").exits(0);
    let mut seen: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in said.stdout.lines() {
        let Some((name, path)) = line.split_once(' ') else {
            panic!("{line}");
        };
        // The last function in the path.
        let parts = path.rsplit('/');
        let mut functions = parts.filter(|part| part.starts_with("0000:"));
        if let Some(at) = functions.next() {
            seen.entry(name.to_owned()).or_default().push(at.to_owned());
        }
    }
    seen
}

#[test]
fn nothing_moves_when_others_come_and_go() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    for id in ["root", "aaa", "zzz"] {
        let file = std::fs::File::create(env.image(format!("{id}.raw"))).expect("a file");
        file.set_len(1 << 20).expect("a sparse file");
    }
    for (board, starts) in [
        (
            "q35",
            &[
                &["disk-root", "balloon"][..],
                &["disk-root", "disk-aaa", "card-a", "share-srv", "balloon"],
                &["disk-root", "card-a", "shmem-glass", "rng"],
                &["disk-root", "disk-zzz", "share-srv", "rng", "balloon"],
                &["disk-root", "disk-aaa", "disk-zzz", "card-a", "shmem-glass"],
            ][..],
        ),
        (
            "pc",
            &[
                &["disk-root"],
                &["disk-root", "disk-aaa", "card-a", "shmem-glass"],
                &["disk-root", "disk-zzz"],
            ],
        ),
    ] {
        let places = env.path("state/g/places.json");
        let mut first: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for devices in starts {
            let before = std::fs::read_to_string(&places).ok();
            env.mvm(&format!("start g --dry-run --set machine.type={board}"));
            assert_eq!(std::fs::read_to_string(&places).ok(), before, "a dry run");
            let seen = start(&env, board, devices);
            let named = |name: &&String| !name.starts_with("0x");
            assert!(seen.keys().filter(named).count() > 1, "{seen:?}");
            for (name, at) in &seen {
                // What is alike is told apart by serial numbers and addresses; ports come and go with what needs them.
                let bridge = name.contains(":0x0604") || name.contains("0x1af4:");
                if bridge && name.starts_with("0x") {
                    continue;
                }
                let was = first.entry(name.clone()).or_insert_with(|| at.clone());
                assert_eq!(was, at, "{name} on {board} with {devices:?}");
            }
        }
        assert!(first.contains_key("aaa") && first.contains_key("zzz"));
    }
    // What is kept goes with the guest.
    env.mvm("remove g --yes").exits(0);
    assert!(!env.path("state/g/places.json").exists());
}

#[test]
fn what_is_kept_and_cannot_be_read_is_told() {
    let env = TestEnv::new();
    env.write("config/machines/g.toml", "extends = [\"base\"]\n");
    let path = env.write("state/g/places.json", "{ no");
    env.mvm("start g --dry-run")
        .exits(1)
        .says(&path.display().to_string())
        .says("remove it");
}
