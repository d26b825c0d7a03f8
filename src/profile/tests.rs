//! Loading as a whole: layers, variants, flags.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::schema::FirmwareWord;
use super::testing::{Home, set};
use super::{Choices, search};
use crate::ids::Id;
use crate::units::Size;

fn id(text: &str) -> Id {
    text.parse().unwrap()
}

#[test]
fn every_built_in_profile_loads_with_each_of_its_variants() {
    let home = Home::new();
    for (name, _) in search::built_in() {
        let plain = home.load(name, &Choices::default()).unwrap();
        for variant in plain.variants {
            let choices = Choices {
                variants: vec![variant.name],
                ..Choices::default()
            };
            home.load(name, &choices).unwrap();
        }
    }
}

#[test]
fn a_machine_file_lies_over_its_profile_and_flags_over_both() {
    let home = Home::new();
    home.write(
        "profiles/ubuntu.toml",
        "extends = ['ubuntu']\ncpu.count = 8\n",
    );
    home.write(
        "machines/web.toml",
        "extends = ['ubuntu']\n[memory]\nsize = '8G'\n",
    );

    let web = home.load("web", &set(&["cpu.threads=2"])).unwrap();

    assert_eq!(web.layer.memory.unwrap().size, Some(Size::mib(8192)));
    let cpu = web.layer.cpu.unwrap();
    assert_eq!((cpu.count, cpu.threads), (Some(8), Some(2)));
    assert_eq!(web.machine_file, Some(home.path("machines/web.toml")));
    let from = |path: &[&str]| home.strip(&web.origins.get(path).unwrap().to_string());
    assert_eq!(from(&["memory", "size"]), "$HOME/machines/web.toml:3");
    assert_eq!(from(&["cpu", "count"]), "$HOME/profiles/ubuntu.toml:2");
    assert_eq!(from(&["cpu", "threads"]), "--set cpu.threads=2");
    assert_eq!(from(&["rng", "enabled"]), "built-in base:11");
    let layers: Vec<String> = web
        .layers
        .iter()
        .map(|l| home.strip(&l.to_string()))
        .collect();
    assert_eq!(
        layers,
        [
            "built-in base",
            "built-in client",
            "built-in ubuntu",
            "$HOME/profiles/ubuntu.toml",
            "$HOME/machines/web.toml"
        ]
    );
}

#[test]
fn what_two_profiles_share_does_not_undo_what_one_of_them_says() {
    let home = Home::new();
    home.write("profiles/a.toml", "cpu.count = 1\nmemory.size = '1G'\n");
    home.write("profiles/b.toml", "extends = ['a']\ncpu.count = 2\n");
    home.write("profiles/c.toml", "extends = ['a']\n");
    home.write("profiles/d.toml", "extends = ['b', 'c']\n");
    let merged = home.load("d", &Choices::default()).unwrap().layer;
    assert_eq!(merged.cpu.unwrap().count, Some(2));
}

#[test]
fn a_later_alternative_drops_the_earlier_one() {
    let home = Home::new();
    home.write(
        "profiles/tapped.toml",
        "extends = ['demo']\n[network.lan.tap]\nname = 'tap0'\n[disk.cd]\nempty = true\nmedia = 'cdrom'\n",
    );
    let lan = |choices: &[&str]| {
        let merged = home.load("tapped", &set(choices)).unwrap().layer;
        (
            merged.network.unwrap_or_default().remove(&id("lan")),
            merged.disk.unwrap_or_default().remove(&id("cd")),
        )
    };
    let (net, cd) = lan(&["disk.cd.file.path=x.iso"]);
    let net = net.unwrap();
    assert!(net.user.is_none() && net.tap.is_some());
    let cd = cd.unwrap();
    assert_eq!(cd.empty, None);
    assert_eq!(cd.file.unwrap().path.as_deref(), Some("x.iso"));
    assert!(
        lan(&["network.lan.user.restrict=true"])
            .0
            .unwrap()
            .tap
            .is_none()
    );
    assert_eq!(
        lan(&["network.lan.none={}", "disk.cd.none={}"]),
        (None, None)
    );
}

#[test]
fn variants_apply_in_the_order_written_and_below_the_flags() {
    let home = Home::new();
    home.write(
        "profiles/v.toml",
        "firmware.type = 'bios'\n\
         [variant.z.cpu]\ncount = 1\n\
         [variant.uefi]\nwhen = { firmware = 'uefi' }\ncpu.count = 2\nmemory.size = '2G'\n\
         [variant.a]\ncpu.count = 3\n",
    );
    let count = |choices: &Choices| {
        let loaded = home.load("v", choices).unwrap();
        let on: Vec<String> = loaded
            .variants
            .iter()
            .filter(|variant| variant.on)
            .map(|variant| variant.name.clone())
            .collect();
        (loaded.layer.cpu.unwrap_or_default().count, on.join(" "))
    };
    let by_hand = |names: &[&str], set: &[&str]| Choices {
        variants: names.iter().map(ToString::to_string).collect(),
        set: set.iter().map(ToString::to_string).collect(),
        ..Choices::default()
    };
    assert_eq!(count(&by_hand(&[], &[])), (None, String::new()));
    assert_eq!(
        count(&by_hand(&["uefi", "z"], &[])),
        (Some(2), "z uefi".into())
    );
    assert_eq!(
        count(&by_hand(&["a", "uefi"], &[])),
        (Some(3), "uefi a".into())
    );
    assert_eq!(count(&by_hand(&["a"], &["cpu.count=9"])).0, Some(9));
    assert_eq!(
        count(&by_hand(&[], &["firmware.type=uefi"])),
        (Some(2), "uefi".into())
    );
    let flag = Choices {
        firmware: Some("uefi".into()),
        ..Choices::default()
    };
    assert_eq!(count(&flag), (Some(2), "uefi".into()));
    let loaded = home.load("v", &flag).unwrap();
    assert_eq!(
        loaded.layer.firmware.unwrap().r#type,
        Some(FirmwareWord::Uefi)
    );
    assert_eq!(
        home.strip(&loaded.origins.get(&["memory", "size"]).unwrap().to_string()),
        "variant uefi of $HOME/profiles/v.toml:7"
    );
}

#[test]
fn an_upper_layer_changes_and_switches_on_a_variant_of_a_lower_one() {
    let home = Home::new();
    home.write("profiles/low.toml", "[variant.big.memory]\nsize = '8G'\n");
    home.write(
        "machines/up.toml",
        "extends = ['low']\nvariants = ['big']\n[variant.big.cpu]\ncount = 8\n",
    );
    let merged = home.load("up", &Choices::default()).unwrap().layer;
    assert_eq!(merged.memory.unwrap().size, Some(Size::mib(8192)));
    assert_eq!(merged.cpu.unwrap().count, Some(8));
    assert_eq!(
        (merged.variants, merged.variant, merged.extends),
        (None, None, None)
    );
}

#[test]
fn an_empty_text_takes_a_value_away() {
    let home = Home::new();
    let choices = Choices {
        variants: vec!["rootfs".into()],
        ..Choices::default()
    };
    let merged = home.load("linux", &choices).unwrap().layer;
    assert_eq!(merged.boot.unwrap().initrd, None);
}

#[test]
fn a_file_can_be_named_by_its_path() {
    let home = Home::new();
    home.write(
        "profiles/ubuntu.toml",
        "extends = ['ubuntu']\ncpu.count = 8\n",
    );
    home.write(
        "elsewhere/ubuntu.toml",
        "extends = ['ubuntu']\ncpu.cores = 4\n",
    );
    for path in ["profiles/ubuntu.toml", "elsewhere/ubuntu.toml"] {
        let path = home.path(path).display().to_string();
        let merged = home.load(&path, &Choices::default()).unwrap().layer;
        assert_eq!(merged.cpu.unwrap().count, Some(8), "{path}");
    }
}
