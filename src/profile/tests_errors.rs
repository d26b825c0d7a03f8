//! What the user reads when a profile or a flag is wrong, whole.
#![expect(clippy::unwrap_used, reason = "tests")]

use super::Choices;
use super::testing::{Home, set};

/// The error of a profile with that text.
fn told(text: &str) -> String {
    let home = Home::new();
    home.write("profiles/x.toml", text);
    home.told("x", &Choices::default())
}

fn refused(flag: &str) -> String {
    Home::new().told("ubuntu", &set(&[flag]))
}

#[test]
fn unknown_keys() {
    insta::assert_snapshot!(told("memroy.size = '1G'\n"), @r#"
    error: $HOME/profiles/x.toml:1:1: unknown key `memroy`
    1 | memroy.size = '1G'
      | ^^^^^^
    hint: did you mean `memory`?
    exit 3
    "#);
    insta::assert_snapshot!(told("summary = 'x'\n\n[disk.system]\nfile.path = 'a'\ncach = 'none'\n"), @r#"
    error: $HOME/profiles/x.toml:5:1: unknown key `cach` in `disk.system`
    5 | cach = 'none'
      | ^^^^
    hint: did you mean `cache`?
    exit 3
    "#);
    insta::assert_snapshot!(told("[variant.big.memory]\nsice = '8G'\n"), @r#"
    error: $HOME/profiles/x.toml:2:1: unknown key `sice` in `variant.big.memory`
    2 | sice = '8G'
      | ^^^^
    hint: did you mean `size`?
    exit 3
    "#);
    insta::assert_snapshot!(told("[balloon]\nzzz = 1\n"), @r#"
    error: $HOME/profiles/x.toml:2:1: unknown key `zzz` in `balloon`
    2 | zzz = 1
      | ^^^
    hint: the keys here are `enabled`, `free-page-reporting`, `deflate-on-oom`
    exit 3
    "#);
    insta::assert_snapshot!(told("[network.lan.none]\nzzz = 1\n"), @r#"
    error: $HOME/profiles/x.toml:2:1: unknown key `zzz` in `network.lan.none`
    2 | zzz = 1
      | ^^^
    hint: no key can stand here
    exit 3
    "#);
}

#[test]
fn wrong_types_and_values() {
    insta::assert_snapshot!(told("[memory]\nsize = 4\n"), @r#"
    error: $HOME/profiles/x.toml:2:8: `memory.size`: expected a text, found 4
    2 | size = 4
      |        ^
    hint: write it with its unit and in quotes, as in "4G"
    exit 3
    "#);
    insta::assert_snapshot!(told("[memory]\nsize = '-1G'\n"), @r#"
    error: $HOME/profiles/x.toml:2:8: `memory.size`: `-1G` is not a size (expected a positive number with K, M, G or T, as in `4G`)
    2 | size = '-1G'
      |        ^^^^^
    exit 3
    "#);
    insta::assert_snapshot!(told("[cpu]\ncount = -1\n"), @r#"
    error: $HOME/profiles/x.toml:2:9: `cpu.count`: expected a whole number from 0 to 4294967295, found -1
    2 | count = -1
      |         ^^
    exit 3
    "#);
    insta::assert_snapshot!(told("cpu.count = '4'\n"), @r#"
    error: $HOME/profiles/x.toml:1:13: `cpu.count`: expected a whole number from 0 to 4294967295, found the text "4"
    1 | cpu.count = '4'
      |             ^^^
    hint: write it without quotes: 4
    exit 3
    "#);
    insta::assert_snapshot!(told("[disk.system]\nfile.path = 'a'\ncache = 'nome'\n"), @r#"
    error: $HOME/profiles/x.toml:3:9: `disk.system.cache`: `nome` is not one of `none`, `writeback`, `writethrough`, `directsync`, `unsafe`
    3 | cache = 'nome'
      |         ^^^^^^
    hint: did you mean `none`?
    exit 3
    "#);
    insta::assert_snapshot!(told("machine.gic = 3\n"), @r#"
    error: $HOME/profiles/x.toml:1:15: `machine.gic`: expected a word in quotes
    1 | machine.gic = 3
      |               ^
    hint: write the value in double quotes
    exit 3
    "#);
    insta::assert_snapshot!(told("network.lan.user = true\n"), @r#"
    error: $HOME/profiles/x.toml:1:20: `network.lan.user`: expected a table, found true
    1 | network.lan.user = true
      |                    ^^^^
    hint: a table is written in braces: { key = value }
    exit 3
    "#);
    insta::assert_snapshot!(told("trace = 'virtio*'\n"), @r#"
    error: $HOME/profiles/x.toml:1:9: `trace`: expected a list, found the text "virtio*"
    1 | trace = 'virtio*'
      |         ^^^^^^^^^
    hint: a list is written in brackets: ["a", "b"]
    exit 3
    "#);
    insta::assert_snapshot!(told("agent.enabled = 'true'\n"), @r#"
    error: $HOME/profiles/x.toml:1:17: `agent.enabled`: expected `true` or `false`, found the text "true"
    1 | agent.enabled = 'true'
      |                 ^^^^^^
    hint: write it without quotes: true
    exit 3
    "#);
    insta::assert_snapshot!(told("disk = 3\n"), @r#"
    error: $HOME/profiles/x.toml:1:8: `disk`: expected a table, found 3
    1 | disk = 3
      |        ^
    hint: a table is written in braces: { key = value }
    exit 3
    "#);
    insta::assert_snapshot!(told("[disk.'a b']\nempty = true\n"), @r#"
    error: $HOME/profiles/x.toml:1:7: `disk."a b"`: `a b` is not an id (expected 1 to 32 letters, digits, `-`, `_` or `.`, starting with a letter)
    1 | [disk.'a b']
      |       ^^^^^
    exit 3
    "#);
    insta::assert_snapshot!(told("[network.lan]\nuser = {}\nmac = '52:54:00:zz:00:00'\n"), @r#"
    error: $HOME/profiles/x.toml:3:7: `network.lan.mac`: `52:54:00:zz:00:00` is not a MAC address of one station (expected six hexadecimal bytes as in 52:54:00:ab:cd:11, the first one even)
    3 | mac = '52:54:00:zz:00:00'
      |       ^^^^^^^^^^^^^^^^^^^
    exit 3
    "#);
}

#[test]
fn broken_texts() {
    insta::assert_snapshot!(told("[cpu\ncount = 1\n"), @r#"
    error: $HOME/profiles/x.toml:1:5: unclosed table, expected `]`
    1 | [cpu
      |     ^
    exit 3
    "#);
    insta::assert_snapshot!(told("[cpu]\ncount = \n"), @r#"
    error: $HOME/profiles/x.toml:2:9: string values must be quoted, expected literal string
    2 | count = 
      |         ^
    exit 3
    "#);
    insta::assert_snapshot!(told("[cpu]\ncount = 1\ncount = 2\n"), @r#"
    error: $HOME/profiles/x.toml:3:1: duplicate key
    3 | count = 2
      | ^^^^^
    exit 3
    "#);
    insta::assert_snapshot!(told("hello"), @r#"
    error: $HOME/profiles/x.toml:1:6: key with no value, expected `=`
    1 | hello
      |      ^
    exit 3
    "#);
}

#[test]
fn alternatives() {
    insta::assert_snapshot!(told("[network.lan]\nuser = {}\ntap = { name = 'tap0' }\n"), @r#"
    error: $HOME/profiles/x.toml:3:1: `network.lan` has both `user` (line 2) and `tap`
    3 | tap = { name = 'tap0' }
      | ^^^
    hint: keep one of `user`, `tap`, `vhost-user`, `none`
    exit 3
    "#);
    insta::assert_snapshot!(told("[variant.v.disk.cd.file]\npath = 'a'\n[variant.v.disk.cd]\nempty = true\n"), @r#"
    error: $HOME/profiles/x.toml:4:1: `variant.v.disk.cd` has both `file` (line 1) and `empty`
    4 | empty = true
      | ^^^^^
    hint: keep one of `file`, `empty`, `vhost-user`, `none`
    exit 3
    "#);
    insta::assert_snapshot!(told("[network.lan]\nmodel = 'e1000'\n"), @r#"
    error: `network.lan` says none of `user`, `tap`, `vhost-user`, `none` ($HOME/profiles/x.toml:1)
    exit 3
    "#);
}

#[test]
fn extending() {
    let home = Home::new();
    home.write("profiles/a.toml", "extends = ['b']\n");
    home.write("profiles/b.toml", "extends = ['c', 'base']\n");
    home.write("profiles/c.toml", "extends = ['a']\n");
    home.write("profiles/self.toml", "extends = ['self']\n");
    home.write(
        "profiles/lost.toml",
        "extends = [\n  'base',\n  'unbuntu',\n]\n",
    );
    home.write("profiles/path.toml", "extends = ['../../etc/passwd']\n");
    for n in 0..100 {
        home.write(
            &format!("profiles/p{n}.toml"),
            format!("extends = ['p{}']\n", n + 1),
        );
    }
    let told = |name: &str| home.told(name, &Choices::default());
    insta::assert_snapshot!(told("b"), @r#"
    error: profiles extend each other in a circle: $HOME/profiles/b.toml → $HOME/profiles/c.toml → $HOME/profiles/a.toml → $HOME/profiles/b.toml
    exit 3
    "#);
    insta::assert_snapshot!(told("self"), @r#"
    error: $HOME/profiles/self.toml:1:12: there is no profile named `self` below this one
    1 | extends = ['self']
      |            ^^^^^^
    exit 3
    "#);
    insta::assert_snapshot!(told("p0"), @r#"
    error: `extends` goes deeper than 32 profiles: $HOME/profiles/p0.toml → $HOME/profiles/p1.toml → … (29 more) → $HOME/profiles/p31.toml → $HOME/profiles/p32.toml
    exit 3
    "#);
    insta::assert_snapshot!(told("lost"), @r#"
    error: $HOME/profiles/lost.toml:3:3: there is no profile named `unbuntu`
    3 |   'unbuntu',
      |   ^^^^^^^^^
    hint: did you mean `ubuntu`?
    exit 3
    "#);
    insta::assert_snapshot!(told("path"), @r#"
    error: $HOME/profiles/path.toml:1:12: there is no profile named `../../etc/passwd`
    1 | extends = ['../../etc/passwd']
      |            ^^^^^^^^^^^^^^^^^^
    exit 3
    "#);
}

#[test]
fn files_that_are_no_profiles() {
    let home = Home::new();
    home.write("profiles/large.toml", "nonsense ".repeat(600_000));
    home.write("profiles/latin.toml", b"summary = 'x'\nappend = '\xe4'\n");
    home.write("profiles/folder.toml/x", "");
    home.write(
        "profiles/bin.toml",
        (0..60_000u32).map(|n| (n % 128) as u8).collect::<Vec<_>>(),
    );
    nix::unistd::mkfifo(
        &home.path("profiles/pipe.toml"),
        nix::sys::stat::Mode::S_IRWXU,
    )
    .unwrap();
    std::os::unix::fs::symlink("loop.toml", home.path("profiles/loop.toml")).unwrap();
    let told = |name: &str| home.told(name, &Choices::default());
    insta::assert_snapshot!(told("large"), @r#"
    error: $HOME/profiles/large.toml is larger than a profile may be (1024 KiB)
    exit 3
    "#);
    insta::assert_snapshot!(told("latin"), @r#"
    error: $HOME/profiles/latin.toml:2: not UTF-8 text
    exit 3
    "#);
    insta::assert_snapshot!(told("folder"), @r#"
    error: $HOME/profiles/folder.toml is a directory and not a profile
    exit 3
    "#);
    insta::assert_snapshot!(told("pipe"), @r#"
    error: $HOME/profiles/pipe.toml is a device, a pipe or a socket and not a profile
    exit 3
    "#);
    insta::assert_snapshot!(told("loop"), @r#"
    error: cannot read $HOME/profiles/loop.toml: Too many levels of symbolic links (os error 40)
    exit 3
    "#);
    insta::assert_snapshot!(told("bin"), @r#"
    error: $HOME/profiles/bin.toml:1:11: key with no value, expected `=`
    1 | ��������� 
      |           ^
    exit 3
    "#);
    insta::assert_snapshot!(told("unbuntu"), @r#"
    error: there is no machine file and no profile named `unbuntu`
    hint: did you mean `ubuntu`?
    exit 3
    "#);
    insta::assert_snapshot!(told("qwertz"), @r#"
    error: there is no machine file and no profile named `qwertz`
    hint: `mvm profile list` shows the profiles
    exit 3
    "#);
    insta::assert_snapshot!(told("a b"), @r#"
    error: `a b` is not the name of a profile (expected letters, digits, `-`, `_` or `.`)
    exit 3
    "#);
    insta::assert_snapshot!(told("/nowhere/x.toml"), @r#"
    error: cannot read /nowhere/x.toml: No such file or directory (os error 2)
    exit 3
    "#);
}

#[test]
fn flags() {
    insta::assert_snapshot!(refused("memory.size"), @r#"
    error: --set memory.size: expected KEY=VALUE
    hint: as in `--set memory.size=8G`
    exit 2
    "#);
    insta::assert_snapshot!(refused("memory.sizze=8G"), @r#"
    error: --set memory.sizze=8G: unknown key `sizze` in `memory`
    hint: did you mean `size`?
    exit 2
    "#);
    insta::assert_snapshot!(refused("memory.size=-8G"), @r#"
    error: --set memory.size=-8G: `-8G` is not a size (expected a positive number with K, M, G or T, as in `4G`)
    exit 2
    "#);
    insta::assert_snapshot!(refused("cpu.count=four"), @r#"
    error: --set cpu.count=four: expected a whole number from 0 to 4294967295, found the text "four"
    exit 2
    "#);
    insta::assert_snapshot!(refused("cpu.count=-1"), @r#"
    error: --set cpu.count=-1: expected a whole number from 0 to 4294967295, found -1
    exit 2
    "#);
    insta::assert_snapshot!(refused("tpm.version=3"), @r#"
    error: --set tpm.version=3: expected a word in quotes
    hint: write the value in double quotes
    exit 2
    "#);
    insta::assert_snapshot!(refused("dsk.system.boot=1"), @r#"
    error: --set dsk.system.boot=1: unknown key `dsk`
    hint: did you mean `disk`?
    exit 2
    "#);
    insta::assert_snapshot!(refused("disk.system.cache=nome"), @r#"
    error: --set disk.system.cache=nome: `nome` is not one of `none`, `writeback`, `writethrough`, `directsync`, `unsafe`
    hint: did you mean `none`?
    exit 2
    "#);
    insta::assert_snapshot!(refused("autostart={pth=1}"), @r#"
    error: --set autostart={pth=1}: unknown key `pth`
    hint: the keys here are `enabled`, `order`, `delay`
    exit 2
    "#);
    insta::assert_snapshot!(refused("qemu-args=-x"), @r#"
    error: --set qemu-args=-x: expected a list, found the text "-x"
    hint: a list is written in brackets: ["a", "b"]
    exit 2
    "#);
    insta::assert_snapshot!(refused("a..b=1"), @r#"
    error: --set a..b=1: `a..b` is not a key
    hint: keys are joined by dots, as in `disk.system.read-only`
    exit 2
    "#);
    insta::assert_snapshot!(refused("extends=['x']"), @r#"
    error: --set extends=['x']: `extends` cannot be set by flag
    hint: write a machine file that extends the profile
    exit 2
    "#);
    insta::assert_snapshot!(refused("network.lan={user={}, tap={}}"), @r#"
    error: --set network.lan={user={}, tap={}}: `network.lan` has both `user` and `tap`
    exit 2
    "#);
}

#[test]
fn choices() {
    let home = Home::new();
    home.write(
        "machines/m.toml",
        "extends = ['arm-virt']\nvariants = ['rootfs', 'wachdog']\n",
    );
    let told = |choices: Choices| home.told("arm-virt", &choices);
    let some = |text: &str| Some(text.to_owned());
    insta::assert_snapshot!(told(Choices { variants: vec!["wachdog".into()], ..Choices::default() }), @r#"
    error: --variant wachdog names no variant of arm-virt
    hint: did you mean `watchdog`?
    exit 2
    "#);
    insta::assert_snapshot!(home.told("m", &Choices::default()), @r#"
    error: `variants` ($HOME/machines/m.toml:2): `wachdog` names no variant of m
    hint: did you mean `watchdog`?
    exit 3
    "#);
    insta::assert_snapshot!(told(Choices { firmware: some("uefy"), ..Choices::default() }), @r#"
    error: --firmware uefy: expected one of `bios`, `uefi`, `none`
    hint: did you mean `uefi`?
    exit 2
    "#);
    insta::assert_snapshot!(told(Choices { gpu: some("fv:1"), ..Choices::default() }), @r#"
    error: --gpu fv:1: there is no GPU `fv`
    hint: did you mean `vf`?
    exit 2
    "#);
    insta::assert_snapshot!(told(Choices { display: some("gtk"), ..Choices::default() }), @r#"
    error: neither mvm nor a variant of arm-virt knows --display gtk
    hint: there are `headless`, `vnc`, `spice`, `local`, `egl-headless`, `dbus`
    exit 2
    "#);
    let headless = Choices {
        display: some("headless"),
        gpu: some("none"),
        ..Choices::default()
    };
    assert!(home.load("arm-virt", &headless).is_ok());
}

#[test]
fn devices_of_the_host() {
    let home = Home::new();
    let told = |text: &str| {
        home.write("profiles/d.toml", text);
        home.told("d", &Choices::default())
    };
    insta::assert_snapshot!(told("[pci.nic]\naddress = 'eth0'\n"), @r#"
    error: $HOME/profiles/d.toml:2:11: `pci.nic.address`: `eth0` is not a PCI address (expected as in 0000:01:00.0)
    2 | address = 'eth0'
      |           ^^^^^^
    exit 3
    "#);
    insta::assert_snapshot!(told("[pci.nic]\naddress = '01:00.0'\nmatch = 'i225'\n"), @r#"
    error: $HOME/profiles/d.toml:3:1: `pci.nic` has both `address` (line 2) and `match`
    3 | match = 'i225'
      | ^^^^^
    hint: keep one of `address`, `id`, `match`, `vf`, `none`
    exit 3
    "#);
    insta::assert_snapshot!(told("[pci.nic]\nvf = { of = 'x550', index = 0 }\n"), @r#"
    error: $HOME/profiles/d.toml:2:29: `pci.nic.vf.index`: `0` is not the number of a virtual function (expected 1 or more, or `auto`)
    2 | vf = { of = 'x550', index = 0 }
      |                             ^
    exit 3
    "#);
    insta::assert_snapshot!(told("[pci.nic]\nvf = { of = 'x550', index = true }\n"), @r#"
    error: $HOME/profiles/d.toml:2:29: `pci.nic.vf.index`: expected a number from 1 or `auto`, found true
    2 | vf = { of = 'x550', index = true }
      |                             ^^^^
    exit 3
    "#);
    insta::assert_snapshot!(told("[pci.nic]\nid = '8086:15f'\n"), @r#"
    error: $HOME/profiles/d.toml:2:6: `pci.nic.id`: `8086:15f` is not vendor and device (expected four and four hexadecimal digits as in 8086:15f3)
    2 | id = '8086:15f'
      |      ^^^^^^^^^^
    exit 3
    "#);
    insta::assert_snapshot!(told("[pci.nic]\naddress = '01:00.0'\nnth = 2\n"), @r#"
    error: $HOME/profiles/d.toml:3: `pci.nic.nth`: goes with `id` or `match`
    exit 3
    "#);
    insta::assert_snapshot!(told("[pci.nic]\nvf = { of = 'x550', vlan = 4095 }\n"), @r#"
    error: $HOME/profiles/d.toml:2: `pci.nic.vf.vlan`: expected 1 to 4094
    exit 3
    "#);
    insta::assert_snapshot!(told("[pci.nic]\nfunctions = 'all'\n"), @r#"
    error: `pci.nic` says none of `address`, `id`, `match`, `vf`, `none` ($HOME/profiles/d.toml:1)
    exit 3
    "#);
    insta::assert_snapshot!(told("[usb.stick]\nport = '1:3'\n"), @r#"
    error: $HOME/profiles/d.toml:2:8: `usb.stick.port`: `1:3` is not a USB port (expected bus and ports as in 1-3.2)
    2 | port = '1:3'
      |        ^^^^^
    exit 3
    "#);
    insta::assert_snapshot!(told("[mdev.m]\nuuid = '83b8f4f2'\n"), @r#"
    error: $HOME/profiles/d.toml:2:8: `mdev.m.uuid`: UUID parsing failed: invalid length: found 8
    2 | uuid = '83b8f4f2'
      |        ^^^^^^^^^^
    exit 3
    "#);
    insta::assert_snapshot!(told("[gpu]\nvf = 1\nwhole = true\n"), @r#"
    error: $HOME/profiles/d.toml:3:1: `gpu` has both `vf` (line 2) and `whole`
    3 | whole = true
      | ^^^^^
    hint: keep one of `vf`, `whole`, `upt`, `mdev`, `virtio`, `none`
    exit 3
    "#);
    insta::assert_snapshot!(told("[pci.nic]\nmatch = 'x'\ndriver = 'pci-stub'\n"), @r#"
    error: $HOME/profiles/d.toml:3: `pci.nic.driver`: expected a driver of VFIO, as vfio-pci or mlx5_vfio_pci
    exit 3
    "#);
    insta::assert_snapshot!(told("[gpu]\nvirtio = true\ngms = 2\n"), @r#"
    error: $HOME/profiles/d.toml:3: `gpu.gms`: is for `whole` and `upt`
    exit 3
    "#);
    insta::assert_snapshot!(told("[gpu]\ncount = 2\n"), @r#"
    error: `gpu` says none of `vf`, `whole`, `upt`, `mdev`, `virtio`, `none` ($HOME/profiles/d.toml:1)
    exit 3
    "#);
    insta::assert_snapshot!(told("[hotplug]\nports = 9\n"), @r#"
    error: $HOME/profiles/d.toml:2: `hotplug.ports`: expected 0 to 8
    exit 3
    "#);
}

#[test]
fn a_fragment_lies_over_variants_and_below_flags() {
    let home = Home::new();
    home.write(
        "profiles/d.toml",
        "extends = ['ubuntu']\n[gpu]\nwhole = true\n[variant.vf]\nwhen.gpu = 'sriov'\nmemory.size = '8G'\nvsock.cid = 5\n",
    );
    home.write(
        "fragment.toml",
        "[gpu]\nvf = 3\n[memory]\nsize = '9G'\n[pci.nic]\nmatch = 'i225'\n",
    );
    let choices = Choices {
        device: vec![home.path("fragment.toml")],
        pci: vec!["wi-fi".into()],
        set: vec!["memory.size=10G".into()],
        take_from_host: true,
        ..Choices::default()
    };
    let profile = home.load("d", &choices).expect("it is fine");
    let gpu = profile.layer.gpu.clone().expect("a GPU");
    assert_eq!(
        (gpu.vf.map(|vf| vf.to_string()), gpu.whole),
        (Some("3".into()), None)
    );
    // The fragment's GPU switched the variant on.
    assert_eq!(profile.layer.vsock.and_then(|vsock| vsock.cid), Some(5));
    let origin =
        |path: &[&str]| home.strip(&profile.origins.get(path).expect("a value").to_string());
    assert_eq!(origin(&["memory", "size"]), "--set memory.size=10G");
    assert_eq!(origin(&["gpu", "vf"]), "$HOME/fragment.toml:2");
    assert_eq!(origin(&["pci", "pci-wi-fi", "match"]), "--pci wi-fi");
    assert_eq!(origin(&["take-from-host"]), "--take-from-host");
    let none = Choices {
        gpu: Some("none".into()),
        ..choices.clone()
    };
    let profile = home.load("d", &none).expect("it is fine");
    assert_eq!(
        (
            profile.layer.gpu,
            profile.layer.vsock.and_then(|vsock| vsock.cid)
        ),
        (None, None)
    );

    home.write("fragment.toml", "<hostdev/>\n");
    insta::assert_snapshot!(home.told("d", &choices), @r#"
    error: --device $HOME/fragment.toml: this is XML, and a piece of a profile is TOML
    hint: `--xml` takes devices as libvirt has them
    exit 2
    "#);
    home.write("fragment.toml", "extends = ['ubuntu']\n");
    insta::assert_snapshot!(home.told("d", &choices), @r#"
    error: --device $HOME/fragment.toml: `extends` is for profiles, and this file lies over one
    exit 2
    "#);
}
