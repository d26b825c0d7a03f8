//! What `mvm profile show`, `list` and `check` and `mvm create` tell.
#![expect(clippy::unwrap_used, reason = "tests")]

use serde::Deserialize;

use super::schema::Layer;
use super::testing::{Home, set};
use super::{Choices, check, list, machine_text, machines, render, search, values};

fn checked(home: &Home, name: &str) -> String {
    let problems = check(&home.dirs, name).unwrap();
    let text: String = problems
        .iter()
        .map(|problem| {
            let hints: String = problem
                .hints
                .iter()
                .map(|hint| format!("hint: {hint}\n"))
                .collect();
            format!("{}\n{hints}", problem.message)
        })
        .collect();
    home.strip(&text)
}

#[test]
fn a_shown_profile_says_where_each_value_is_from() {
    let home = Home::new();
    home.write(
        "machines/web.toml",
        "extends = ['base']\n[disk.'system']\nfile = { path = 'a \"b\".qcow2' }\n\
         [network.lan.user]\n[variant.big]\nmemory.size = '8G'\n",
    );
    let choices = Choices {
        variants: vec!["big".into()],
        ..set(&["qemu-args=['-name', 'x y']"])
    };
    let web = home.load("web", &choices).unwrap();
    insta::assert_snapshot!(home.strip(&render(&web)), @r#"
    # layer: built-in base
    # layer: $HOME/machines/web.toml
    # variant: big
    summary = "The devices that every guest shares; extended by the other profiles"  # from built-in base:2
    qemu-args = ["-name", "x y"]  # from --set qemu-args=['-name', 'x y']

    [console.main]
    device = "serial"             # from built-in base:6
    backend = "mvm"               # from built-in base:7

    [rng]
    enabled = true                # from built-in base:11
    source = "/dev/urandom"       # from built-in base:12

    [balloon]
    enabled = true                # from built-in base:16

    [lifecycle]
    stop-timeout = "60s"          # from built-in base:20

    [disk.system.file]
    path = 'a "b".qcow2'          # from $HOME/machines/web.toml:3

    [network.lan.user]            # from $HOME/machines/web.toml:4

    [memory]
    size = "8G"                   # from variant big of $HOME/machines/web.toml:6
    "#);
    let shown: Vec<String> = values(&web)
        .iter()
        .filter(|shown| {
            shown.key.starts_with("disk")
                || shown.key.starts_with("qemu")
                || shown.key.starts_with("mem")
        })
        .map(|shown| home.strip(&serde_json::to_string(shown).unwrap()))
        .collect();
    insta::assert_snapshot!(shown.join("\n"), @r#"
    {"key":"disk.system.file.path","value":"a \"b\".qcow2","origin":{"layer":{"source":{"file":"$HOME/machines/web.toml"},"line":3}}}
    {"key":"memory.size","value":"8G","origin":{"layer":{"source":{"file":"$HOME/machines/web.toml"},"line":6,"variant":"big"}}}
    {"key":"qemu-args","value":["-name","x y"],"origin":{"flag":"--set qemu-args=['-name', 'x y']"}}
    "#);
}

#[test]
fn a_shown_profile_can_be_loaded_again() {
    let home = Home::new();
    for (name, _) in search::built_in() {
        let profile = home
            .load(
                name,
                &set(&["boot.append=a\n\"b\" # c", "disk.x.file.path=/ä,'x"]),
            )
            .unwrap();
        let again: toml::Table = render(&profile).parse().unwrap();
        assert_eq!(Layer::deserialize(again).unwrap(), profile.layer, "{name}");
    }
}

#[test]
fn the_list_has_each_name_once_and_what_it_shadows() {
    let home = Home::new();
    home.write(
        "profiles/ubuntu.toml",
        "extends = ['ubuntu']\nsummary = 'mine'\n",
    );
    home.write("profiles/broken.toml", "summary = \n");
    home.write("profiles/.hidden.toml", "");
    home.write("profiles/notes.txt", "");
    home.write("machines/web.toml", "");
    let all = list(&home.dirs).unwrap();
    let names: Vec<&str> = all.iter().map(|listed| listed.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "android",
            "arm-initrd",
            "arm-rootfs",
            "arm-virt",
            "base",
            "broken",
            "centos",
            "client",
            "debian",
            "demo",
            "gaming-vfio",
            "linux",
            "microvm",
            "redhat",
            "retro-pc",
            "ubuntu",
            "ubuntu-rt",
            "ubuntu_rt",
            "win10-gvtg",
            "windows",
            "windows10",
            "windows11"
        ]
    );
    for listed in &all {
        let own = listed.name == "ubuntu";
        assert_eq!(listed.shadows.len(), usize::from(own));
        assert_eq!(listed.error.is_some(), listed.name == "broken");
        assert_eq!(listed.summary.is_none(), listed.name == "broken");
    }
    let mine = all.iter().find(|listed| listed.name == "ubuntu").unwrap();
    assert_eq!(mine.summary.as_deref(), Some("mine"));
    let machines = machines(&home.dirs).unwrap();
    assert_eq!(machines.len(), 1);
    assert_eq!(machines[0].name, "web");
}

#[test]
fn a_check_tells_every_fault_of_a_file() {
    let home = Home::new();
    home.write(
        "profiles/x.toml",
        "memroy.size = '1G'\n[cpu]\ncount = 'two'\nmodle = 'max'\n[network.lan]\nuser = {}\ntap = {}\n\
         mac = 'x'\n[disk.'1']\nempty = true\n[variant.v.disk.a]\ncach = 'x'\ncache = 'nun'\n",
    );
    home.write("profiles/syntax.toml", "a = \nb = [1\n[c\n");
    insta::assert_snapshot!(checked(&home, "x"), @r#"
    $HOME/profiles/x.toml:1:1: unknown key `memroy`
    1 | memroy.size = '1G'
      | ^^^^^^
    hint: did you mean `memory`?
    $HOME/profiles/x.toml:3:9: `cpu.count`: expected a whole number from 0 to 4294967295, found the text "two"
    3 | count = 'two'
      |         ^^^^^
    $HOME/profiles/x.toml:4:1: unknown key `modle` in `cpu`
    4 | modle = 'max'
      | ^^^^^
    hint: did you mean `model`?
    $HOME/profiles/x.toml:7:1: `network.lan` has both `user` (line 6) and `tap`
    7 | tap = {}
      | ^^^
    hint: keep one of `user`, `tap`, `vhost-user`, `none`
    $HOME/profiles/x.toml:8:7: `network.lan.mac`: `x` is not a MAC address of one station (expected six hexadecimal bytes as in 52:54:00:ab:cd:11, the first one even)
    8 | mac = 'x'
      |       ^^^
    $HOME/profiles/x.toml:9:7: `disk.1`: `1` is not an id (expected 1 to 32 letters, digits, `-`, `_` or `.`, starting with a letter)
    9 | [disk.'1']
      |       ^^^
    $HOME/profiles/x.toml:12:1: unknown key `cach` in `variant.v.disk.a`
    12 | cach = 'x'
       | ^^^^
    hint: did you mean `cache`?
    $HOME/profiles/x.toml:13:9: `variant.v.disk.a.cache`: `nun` is not one of `none`, `writeback`, `writethrough`, `directsync`, `unsafe`
    13 | cache = 'nun'
       |         ^^^^^
    "#);
    insta::assert_snapshot!(checked(&home, "syntax"), @r#"
    $HOME/profiles/syntax.toml:1:5: string values must be quoted, expected literal string
    1 | a = 
      |     ^
    $HOME/profiles/syntax.toml:3:1: missing comma between array elements, expected `,`
    3 | [c
      | ^
    $HOME/profiles/syntax.toml:3:2: string values must be quoted, expected literal string
    3 | [c
      |  ^
    $HOME/profiles/syntax.toml:3:3: unclosed array, expected `]`
    3 | [c
      |   ^
    "#);
}

#[test]
fn a_check_tells_the_rules_that_values_break_together() {
    let home = Home::new();
    home.write(
        "profiles/x.toml",
        "cpu = { count = 6, sockets = 2, cores = 2, threads = 1 }\n\
         memory.size = '512'\n\
         boot.append = 'quiet'\n\
         machine = { arch = 'x86_64', gic = '3' }\n\
         [disk.a]\nempty = true\nboot = 1\n\
         [disk.b]\nfile = {}\naio = 'native'\nboot = 1\n\
         [disk.c]\nmedia = 'cdrom'\nempty = true\nbus = 'nvme'\n\
         [network.a]\nuser = {}\nmac = '52:54:00:00:00:01'\n\
         [network.b]\nmac = '52:54:00:00:00:01'\ntap.name = 'a-name-of-sixteen'\n\
         [agent]\n[channel.a]\nport = 'org.qemu.guest_agent.0'\n\
         [share.one]\ntag = 't'\n[share.two]\ntag = 't'\npath = '/'\n\
         [lifecycle]\nrestart = 'never'\non-crash = 'restart'\nrestart-limit = 0\n\
         [variant.v]\nvsock.cid = 2\n",
    );
    home.write("profiles/lost.toml", "extends = ['nobody']\n");
    insta::assert_snapshot!(checked(&home, "x"), @r#"
    $HOME/profiles/x.toml:4: `machine.gic`: only aarch64 machines have a GIC
    $HOME/profiles/x.toml:1: `cpu.count`: 6 processors do not fit the topology (sockets × cores × threads = 4)
    $HOME/profiles/x.toml:2: `memory.size`: 512 bytes are too little for any guest; a unit may be missing, as in `4G`
    $HOME/profiles/x.toml:3: `boot.append`: means nothing without `boot.kernel`
    $HOME/profiles/x.toml:6: `disk.a.empty`: only a drive with `media = "cdrom"` can be empty
    $HOME/profiles/x.toml:9: `disk.b.file`: has no `path`
    $HOME/profiles/x.toml:10: `disk.b.aio`: `native` needs `cache = "none"` or `"directsync"`
    $HOME/profiles/x.toml:11: `disk.b.boot`: the same place in the boot order as `a`
    $HOME/profiles/x.toml:15: `disk.c.bus`: `nvme` has no CD-ROM drives
    $HOME/profiles/x.toml:21: `network.b.tap.name`: not a device's name (at most 15 bytes without `/`, `:`, `%` or a space)
    $HOME/profiles/x.toml:20: `network.b.mac`: the same address as `a`
    $HOME/profiles/x.toml:23: `channel.a`: the same port name as the agent's
    $HOME/profiles/x.toml:25: `share.one`: has no `path`
    $HOME/profiles/x.toml:27: `share.two`: the same tag as `one`
    $HOME/profiles/x.toml:32: `lifecycle.on-crash`: contradicts `lifecycle.restart = "never"`; leave that out, it is the default
    $HOME/profiles/x.toml:33: `lifecycle.restart-limit`: expected at least 1; a guest that is never started anew has `restart = "never"`
    variant v of $HOME/profiles/x.toml:35: `vsock.cid`: context ids of guests start at 3
    "#);
    insta::assert_snapshot!(checked(&home, "lost"), @r#"
    $HOME/profiles/lost.toml:1:12: there is no profile named `nobody`
    1 | extends = ['nobody']
      |            ^^^^^^^^
    "#);
}

#[test]
fn the_built_in_profiles_pass_the_check() {
    let home = Home::new();
    for (name, _) in search::built_in() {
        assert_eq!(checked(&home, name), "", "{name}");
    }
}

#[test]
fn a_machine_file_keeps_the_choices() {
    let home = Home::new();
    home.write(
        "profiles/desk.toml",
        "extends = ['ubuntu']\n[variant.vf]\nwhen.gpu = 'vf'\nmemory.size = '8G'\n",
    );
    let choices = Choices {
        gpu: Some("vf:2".into()),
        firmware: Some("bios".into()),
        variants: vec!["ephemeral".into()],
        ..set(&[
            "cpu.count=3",
            "disk.system.file.path=my disk.qcow2",
            "cpu.threads=1",
        ])
    };
    let path = home.path("machines/web.toml");

    let (text, _) = machine_text(&home.dirs, &path, "desk", &choices).unwrap();

    insta::assert_snapshot!(text, @r#"
    extends = ["desk"]
    variants = ["ephemeral"]

    [gpu]
    vf = 2

    [firmware]
    type = "bios"

    [cpu]
    count = 3
    threads = 1

    [disk.system.file]
    path = "my disk.qcow2"
    "#);
    home.write("machines/web.toml", &text);
    let kept = home.load("web", &Choices::default()).unwrap().layer;
    assert_eq!(kept, home.load("desk", &choices).unwrap().layer);

    // What takes a value away is kept too.
    let bare = set(&["boot.initrd=", "network.lan.none={}"]);
    let (text, _) = machine_text(&home.dirs, &path, "linux", &bare).unwrap();
    assert!(
        text.contains("initrd = \"\"") && text.contains("[network.lan.none]"),
        "{text}"
    );

    // A machine is no profile, but there can be a profile of its name.
    home.write("machines/ubuntu.toml", "");
    machine_text(&home.dirs, &path, "ubuntu", &Choices::default()).unwrap();
    let error = machine_text(&home.dirs, &path, "web", &Choices::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "`web` is a guest of its own and not a profile"
    );
}
