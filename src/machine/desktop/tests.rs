//! Desktops that can be and those that cannot.
#![expect(clippy::unwrap_used, reason = "a panic is a failed test")]

use crate::error::{ExitCode, Report};
use crate::host::{HostFacts, QemuFacts, Session};
use crate::ids::Arch;
use crate::machine::testing::{facts, machine, machine_on};
use crate::machine::{Machine, ResolveError};

fn report(made: Result<Machine, ResolveError>) -> Report {
    made.unwrap_err().into()
}

fn refused(text: &str) -> String {
    report(machine(text)).chain.join(": ")
}

fn line(machine: &Machine) -> String {
    crate::qemu::command_line(machine).shown().join(" ")
}

/// The made-up host with a session of `ann`'s, and a QEMU with these options of its windows.
fn with_session(options: &[&str]) -> HostFacts {
    let mut facts = facts();
    facts.users.uid = 1000;
    facts.sessions = vec![Session {
        uid: 1000,
        user: "ann".to_owned(),
        x11: Some(":1".to_owned()),
        xauthority: Some("/run/user/1000/cookie".into()),
        runtime: Some("/run/user/1000".into()),
        pulse: Some("/run/user/1000/pulse/native".into()),
        known: true,
        ..Session::default()
    }];
    if let Some(QemuFacts::Found(caps)) = facts.qemu.get_mut(&Arch::X86_64) {
        caps.displays = ["gtk", "sdl", "spice-app", "dbus", "egl-headless"]
            .into_iter()
            .collect();
        caps.display_options = options.iter().copied().collect();
    }
    facts
}

#[test]
fn a_guest_is_headless_until_it_is_asked_to_be_shown() {
    let plain = machine("").unwrap();
    assert_eq!(plain.desktop, crate::machine::Desktop::default());
    let shown = machine("display.type = 'vnc'").unwrap();
    assert_eq!(shown.desktop.video[0].id.as_str(), "video0");
    assert_eq!(shown.desktop.inputs[0].id.as_str(), "tablet");
    // The tables of a display that is not chosen wait for it.
    let waits = machine("[display]\ntype = 'headless'\n[display.vnc]\nport = 5901").unwrap();
    assert!(!waits.desktop.is_shown());
    // A GPU of QEMU's own is the same device, wherever it is asked for.
    let gpu = machine("gpu.virtio = true\ndisplay.type = 'vnc'\ndisplay.outputs = 2").unwrap();
    assert_eq!(gpu.desktop.video.len(), 1);
    assert!(line(&gpu).contains(
        r#""driver":"virtio-vga","id":"mvm-gpu","bus":"pcie.0","addr":"0x1","max_outputs":2"#
    ));
    let own = machine("gpu.virtio = true\n[video.v]\nmodel = 'virtio-vga'").unwrap();
    assert_eq!(own.desktop.video[0].id.as_str(), "v");
    assert_eq!(own.desktop.video.len(), 1);
    let bare = machine("display.type = 'vnc'\n[video.video0]\nmodel = 'none'").unwrap();
    assert!(
        bare.notes
            .iter()
            .any(|note| note.contains("viewers will see nothing"))
    );
}

#[test]
fn who_can_reach_a_server_is_told() {
    let notes = |text: &str| machine(text).unwrap().notes.join("\n");
    assert!(!notes("[display.vnc]\nlisten = '127.0.0.7'").contains("VNC"));
    assert!(!notes("[display.vnc]\nlisten = 'localhost'").contains("VNC"));
    let open = notes("[display.vnc]\nlisten = '0.0.0.0'");
    assert!(
        open.contains(
            "VNC listens on every network of this host, without a password and unencrypted"
        ),
        "{open}"
    );
    let secret = notes("[display.spice]\nlisten = '192.168.7.1'\npassword-file = '/p'");
    assert!(
        secret.contains("SPICE listens on 192.168.7.1, unencrypted"),
        "{secret}"
    );
    let safe = notes("[display.vnc]\nlisten = '::'\npassword-file = '/p'\ntls = '/t'");
    assert!(safe.contains("encrypted and with a password"), "{safe}");
}

#[test]
fn ports_that_are_taken_are_passed_over() {
    let mut facts = facts();
    let port = |facts: &HostFacts| {
        let text = line(&machine_on("display.type = 'spice'", facts).unwrap());
        text.split(",port=").nth(1).unwrap()[..4].to_owned()
    };
    assert_eq!(port(&facts), "5930");
    facts.ports = [5930, 5931, 5933].into();
    assert_eq!(port(&facts), "5932");
    facts.ports = (5930..=5999).collect();
    let report = report(machine_on("display.type = 'spice'", &facts));
    assert_eq!(report.code, ExitCode::Host);
    assert!(report.hints[0].contains("display.spice.socket"), "{report}");
}

#[test]
fn what_cannot_be_is_named() {
    for (text, words) in [
        ("display.type = ['egl-headless', 'dbus']", "not both"),
        ("display.type = 'egl-headless'", "shows nothing by itself"),
        (
            "display.type = 'vnc'\ndisplay.outputs = 17",
            "`video.video0.outputs` is 17, and may be 1 to 16",
        ),
        (
            "[display]\ntype = 'vnc'\noutputs = 2\n[video.v]\nmodel = 'std'",
            "`video.v.outputs` is 2, and may be 1 to 1",
        ),
        ("[display.vnc]\nport = 80", "`display.vnc.port` is 80"),
        (
            "[display.vnc]\nport = 5910\nto = 5909",
            "`display.vnc.to` is 5909",
        ),
        (
            "[display.vnc]\nsocket = true\nport = 5901",
            "`display.vnc.port` means nothing with a Unix socket",
        ),
        (
            "[display.vnc]\ntls-verify = true",
            "without `display.vnc.tls`",
        ),
        ("[display.vnc]\nlisten = '1.2.3.4:5'", "is not an address"),
        ("[display.vnc]\npassword-file = 'p'", "not an absolute path"),
        (
            "[display.vnc]\naudio = 'a'",
            "which the guest does not have",
        ),
        (
            "[display.spice]\ngl = true",
            "needs `display.spice.socket = true`",
        ),
        (
            "[display.spice]\nrendernode = '/dev/dri/renderD128'",
            "without `display.spice.gl`",
        ),
        (
            "[display.spice]\nagent = false\nagent-mouse = true",
            "without `display.spice.agent`",
        ),
        (
            "[video.v]\nmodel = 'std'\nblob = true",
            "`video.v.blob` means nothing for `std`",
        ),
        (
            "[video.v]\nmodel = 'qxl'\nvram = '3M'",
            "not a power of two",
        ),
        (
            "[video.a]\nprimary = true\n[video.b]\nprimary = true",
            "are both `primary`",
        ),
        (
            "[video.a]\n[video.b]\nmodel = 'cirrus'",
            "can only be the primary one",
        ),
        (
            "[video.v]\naccel-3d = true",
            "needs a display with the host's GPU",
        ),
        (
            "machine.arch = 'aarch64'\nboot.kernel = 'k'\n[video.v]\nmodel = 'qxl'",
            "the board virt has no qxl",
        ),
        ("[input.x]", "does not say what it is"),
        ("[input.x]\ndevice = 'evdev'", "names no device of the host"),
        (
            "[input.x]\ndevice = 'tablet'\nbus = 'ps2'",
            "has no tablet on ps2",
        ),
        (
            "[input.x]\ndevice = 'mouse'\nevdev = { path = '/dev/input/event0' }",
            "`input.x.evdev` means nothing for `mouse`",
        ),
        (
            "[audio.a]\ndevice = 'ac97'\ncodec = 'micro'",
            "`audio.a.codec` means nothing for `ac97`",
        ),
        ("[audio.a]\nbackend = 'spice'", "needs the display `spice`"),
        ("[audio.a]\nbackend = 'dbus'", "needs the display `dbus`"),
        (
            "[audio.a]\nbackend = 'pulseaudio'",
            "has no pulseaudio running",
        ),
        ("[shmem.s]\nsize = '3M'", "not a power of two"),
        ("[shmem.s]\nsize = '4M'\npath = 'x'", "not an absolute path"),
        ("[usb-redirect]", "needs the display `spice`"),
        ("[usb-controller]\nports = 16", "may be 1 to 15"),
        (
            "[usb-controller]\nmodel = 'uhci'\nports = 2",
            "`usb-controller.ports` means nothing for `uhci`",
        ),
        (
            "[usb-controller]\nmodel = 'uhci'\n[input.a]\ndevice = 'mouse'\n[input.b]\ndevice = 'tablet'\n[input.c]\ndevice = 'keyboard'",
            "3 USB devices are more than the 2",
        ),
        (
            "machine.type = 'microvm'\nboot.kernel = 'k'\n[audio.a]",
            "the board microvm has no ich9",
        ),
        ("display.clipboard = true", "needs a display"),
        (
            "[display.spice]\n[channel.c]\nport = 'com.redhat.spice.0'",
            "both have the port",
        ),
        ("[video.d]\n[disk.d]\nfile.path = 'd.img'", "`d`"),
    ] {
        let said = refused(text);
        assert!(said.contains(words), "{text}: {said}");
    }
}

#[test]
fn windows_open_in_the_session_that_is_found() {
    let facts = with_session(&["full-screen", "window-close", "gtk.zoom-to-fit"]);
    let text = "[display.local]\nfull-screen = true\nzoom-to-fit = true\n[audio.a]\nbackend = 'pulseaudio'";
    let machine = machine_on(text, &facts).unwrap();
    let command = crate::qemu::command_line(&machine);
    let shown = command.shown().join(" ");
    assert!(
        shown.contains("-display gtk,full-screen=on,window-close=off,zoom-to-fit=on"),
        "{shown}"
    );
    assert!(
        shown.contains("pa,id=audio-a,server=unix:/run/user/1000/pulse/native"),
        "{shown}"
    );
    let variable = |name: &str| {
        let found = command.env.iter().find(|(one, _)| one == name);
        found.map(|(_, value)| value.as_str())
    };
    assert_eq!(variable("DISPLAY"), Some(":1"));
    assert_eq!(variable("XAUTHORITY"), Some("/run/user/1000/cookie"));
    assert_eq!(variable("GDK_BACKEND"), Some("x11"));

    let nobody = report(machine_on(
        "display.type = 'local'\ndisplay.local.user = 'bob'",
        &facts,
    ));
    assert!(
        nobody.chain[0].contains("`bob` has no graphical session"),
        "{nobody}"
    );
    let mut root = with_session(&[]);
    root.users.uid = 0;
    assert!(machine_on("display.type = 'local'", &root).is_ok());
    let mut second = root.sessions[0].clone();
    second.uid = 1001;
    second.user = "bob".to_owned();
    root.sessions.push(second);
    let several = report(machine_on("display.type = 'local'", &root));
    assert_eq!(
        several.chain[0],
        "several users have a graphical session: ann, bob"
    );
    assert!(machine_on("display.type = 'local'\ndisplay.local.user = 'bob'", &root).is_ok());
    let mut other = with_session(&[]);
    other.users.uid = 1002;
    let other = report(machine_on("display.local.user = 'ann'", &other));
    assert!(
        other.chain[0].contains("whom that session does not let in"),
        "{other}"
    );
}

#[test]
fn what_intels_qemu_alone_has_is_asked_for_there() {
    let text = "[display]\noutputs = 2\n[display.local]\nconnectors = ['HDMI-1', 'DP-1']\nshow-fps = true\n\
                extend-abs-mode = true\nhost-input = false\nhw-cursor = true";
    let own = with_session(&[
        "window-close",
        "gtk.connectors",
        "gtk.show-fps",
        "gtk.extend-abs-mode",
        "gtk.input",
        "gtk.hw-cursor",
    ]);
    let shown = line(&machine_on(text, &own).unwrap());
    let wanted = "-display gtk,window-close=off,show-fps=on,extend-abs-mode=on,input=off,hw-cursor=on,\
                  connectors.0=HDMI-1,connectors.1=DP-1";
    assert!(shown.contains(wanted), "{shown}");
    let plain = with_session(&["window-close"]);
    for (text, key) in [
        ("display.local.connectors = ['DP-1']", "connectors"),
        ("display.local.show-fps = true", "show-fps"),
        ("display.local.extend-abs-mode = true", "extend-abs-mode"),
        ("display.local.host-input = false", "host-input"),
        ("display.local.hw-cursor = true", "hw-cursor"),
    ] {
        let report = report(machine_on(text, &plain));
        assert_eq!(report.code, ExitCode::Host);
        assert!(
            report.chain[0].starts_with(&format!("`display.local.{key}`: this QEMU")),
            "{report}"
        );
        assert!(report.hints[0].contains("Intel's QEMU"), "{report}");
    }
}

#[test]
fn a_module_that_is_missing_names_its_package() {
    let mut facts = with_session(&[]);
    if let Some(QemuFacts::Found(caps)) = facts.qemu.get_mut(&Arch::X86_64) {
        caps.displays = ["none"].into_iter().collect();
        for name in ["gtk", "spice-app", "egl-headless"] {
            caps.unloadable
                .insert(format!("display.{name}"), format!("ui-{name}.so"));
        }
    }
    for (text, package) in [
        ("display.local.toolkit = 'gtk'", "qemu-system-gui"),
        ("display.type = 'spice'", "qemu-system-modules-spice"),
        (
            "display.type = ['vnc', 'egl-headless']",
            "qemu-system-modules-opengl",
        ),
    ] {
        let report = report(machine_on(text, &facts));
        assert!(report.hints[0].contains(package), "{report}");
    }
}
