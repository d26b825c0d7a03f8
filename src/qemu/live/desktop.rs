//! Displays and what belongs to them, asked of QEMU itself.

use std::process::Command;

use serde_json::{Value, json};

use super::session::{Session, installed, program};
use super::{runs, runs_and_ends};
use crate::machine::{Machine, testing};
use crate::qemu::command::FdSource;
use crate::qemu::command_line;

/// Whether QEMU knows what `help` of that switch lists: displays and SPICE are modules.
pub(super) fn lists(machine: &Machine, switch: &str, name: &str) -> bool {
    let said = Command::new(program(machine))
        .args([switch, "help"])
        .output()
        .unwrap();
    let there = String::from_utf8_lossy(&said.stdout)
        .lines()
        .any(|line| line.trim() == name);
    if !there {
        eprintln!("skipped: this QEMU has no {name} for {switch}");
    }
    there
}

/// The properties of a device that are asked for.
pub(super) fn properties(session: &mut Session, id: &str, names: &[&str]) -> Vec<Value> {
    let path = format!("/machine/peripheral/{id}");
    names
        .iter()
        .map(|name| session.call("qom-get", json!({ "path": path, "property": name })))
        .collect()
}

#[test]
fn vnc_listens_where_the_profile_says() {
    let text = "[display.vnc]\nshare = 'force-shared'";
    let Some((mut first, _)) = runs(text, &[]) else {
        return;
    };
    let (mut second, _) = runs(text, &[]).unwrap();
    // Two guests, two ports: the second takes the next.
    let ports = [&mut first, &mut second].map(|session| {
        let vnc = session.call("query-vnc", json!({}));
        assert_eq!(
            (&vnc["enabled"], &vnc["host"]),
            (&json!(true), &json!("127.0.0.1"))
        );
        assert_eq!(
            (&vnc["auth"], &vnc["family"]),
            (&json!("none"), &json!("ipv4"))
        );
        vnc["service"].as_str().unwrap().parse::<u16>().unwrap()
    });
    assert!(
        ports.iter().all(|port| (5900..=5999).contains(port)),
        "{ports:?}"
    );
    assert_ne!(ports[0], ports[1]);
    first.quit();

    let taken = ports[1];
    let text = format!(
        "[display.vnc]\nlisten = '::1'\nport = {}\nto = {}",
        taken + 40,
        taken + 49
    );
    let (mut session, machine) = runs(&text, &[]).unwrap();
    let vnc = session.call("query-vnc", json!({}));
    assert_eq!(
        (&vnc["host"], &vnc["family"]),
        (&json!("::1"), &json!("ipv6"))
    );
    let port: u16 = vnc["service"].as_str().unwrap().parse().unwrap();
    assert!((taken + 40..=taken + 49).contains(&port), "{vnc}");
    assert!(
        machine.notes.iter().all(|note| !note.contains("VNC")),
        "{:?}",
        machine.notes
    );
    session.quit();
    second.quit();

    let (mut session, machine) = runs("[display.vnc]\nsocket = true", &[]).unwrap();
    let vnc = session.call("query-vnc", json!({}));
    assert_eq!(vnc["family"], "unix");
    assert_eq!(vnc["service"], json!(machine.run_dir.join("vnc.sock")));
    session.quit();
}

/// The certificates of a throw-away authority, made by `openssl`.
fn certificates(dir: &std::path::Path) -> bool {
    let script = "set -e; cd \"$0\"
        openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=ca -days 2 -keyout ca-key.pem -out ca-cert.pem
        openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout server-key.pem -out server.csr
        openssl x509 -req -in server.csr -CA ca-cert.pem -CAkey ca-key.pem -CAcreateserial -days 2 -out server-cert.pem";
    let made = Command::new("sh").args(["-c", script]).arg(dir).output();
    let made = made.is_ok_and(|made| made.status.success());
    if !made {
        eprintln!("skipped: no openssl to make certificates with");
    }
    made
}

#[test]
fn passwords_and_certificates_reach_the_servers() {
    let keys = tempfile::tempdir().unwrap();
    if !certificates(keys.path()) {
        return;
    }
    std::fs::write(keys.path().join("password"), "secret").unwrap();
    let keys = keys.path().to_str().unwrap();
    let text = format!("[display.vnc]\npassword-file = '{keys}/password'");
    let Some((mut session, machine)) = runs(&text, &[]) else {
        return;
    };
    let vnc = session.call("query-vnc", json!({}));
    assert_eq!(vnc["auth"], "vnc");
    session.quit();
    // What QEMU itself gets is a copy in memory, and the command line has nothing of it.
    let line = command_line(&machine);
    let secret = line
        .fds
        .iter()
        .find(|fd| matches!(fd.source, FdSource::Secret(_)))
        .unwrap();
    assert_eq!(secret.name, "mvm-vnc-password");
    assert!(
        !line.argv().join(" ").contains("password\"}"),
        "{:?}",
        line.argv()
    );

    let text = format!(
        "[display.vnc]\ntls = '{keys}'\ntls-verify = true\npassword-file = '{keys}/password'"
    );
    let (mut session, _) = runs(&text, &[]).unwrap();
    let servers = session.call("query-vnc-servers", json!({}));
    assert_eq!(servers[0]["auth"], "vencrypt", "{servers}");
    assert_eq!(servers[0]["vencrypt"], "x509-vnc", "{servers}");
    let verify = json!({ "path": "/objects/mvm-vnc-tls", "property": "verify-peer" });
    assert_eq!(session.call("qom-get", verify), true);
    session.quit();

    let text =
        format!("[display.spice]\ntls = '{keys}'\npassword-file = '{keys}/password'\nport = 5947");
    let dir = tempfile::tempdir().unwrap();
    let machine = testing::real(dir.path(), &text, &testing::facts()).unwrap();
    if !lists(&machine, "-display", "spice-app") {
        return;
    }
    let (mut session, _) = runs(&text, &[]).unwrap();
    let spice = session.call("query-spice", json!({}));
    assert_eq!(
        (&spice["tls-port"], &spice["auth"]),
        (&json!(5947), &json!("spice")),
        "{spice}"
    );
    assert!(spice.get("port").is_none(), "{spice}");
    session.quit();
}

#[test]
fn spice_is_as_the_profile_says() {
    let dir = tempfile::tempdir().unwrap();
    let plain = testing::real(dir.path(), "display.type = 'spice'", &testing::facts()).unwrap();
    if !installed(&plain) || !lists(&plain, "-display", "spice-app") {
        return;
    }
    let text = "[display.spice]\nport = 5951\nimage-compression = 'auto-lz'\njpeg-compression = 'never'\n\
                zlib-compression = 'always'\nplayback-compression = false\nstreaming = 'filter'\n\
                agent-mouse = false\nfile-transfer = false\nwebdav = true\n\
                [display]\ntype = ['spice', 'vnc']\n[usb-redirect]\n[audio.sound]\n[agent]";
    let (mut session, machine) = runs(text, &[]).unwrap();
    let spice = session.call("query-spice", json!({}));
    assert_eq!(
        (&spice["host"], &spice["port"]),
        (&json!("127.0.0.1"), &json!(5951))
    );
    assert_eq!(
        (&spice["auth"], &spice["mouse-mode"]),
        (&json!("none"), &json!("server"))
    );
    assert_eq!(session.call("query-vnc", json!({}))["enabled"], true);
    let chardevs = session.call("query-chardev", json!({}));
    let kind = |label: &str| {
        let all = chardevs.as_array().unwrap().iter();
        let found = all.clone().find(|chardev| chardev["label"] == label);
        found.map(|chardev| chardev["filename"].as_str().unwrap().to_owned())
    };
    for (label, filename) in [
        ("mvm-spice-agent", "spicevmc"),
        ("mvm-spice-webdav", "spiceport"),
        ("mvm-usb-redirect-0", "spicevmc"),
        ("mvm-usb-redirect-1", "spicevmc"),
    ] {
        assert_eq!(kind(label).as_deref(), Some(filename), "{chardevs}");
    }
    assert_eq!(
        properties(&mut session, "mvm-spice-agent", &["name", "nr"]),
        [json!("com.redhat.spice.0"), json!(30)]
    );
    assert_eq!(
        properties(&mut session, "mvm-spice-webdav", &["name", "nr"]),
        [json!("org.spice-space.webdav.0"), json!(29)]
    );
    let there = session.names("/machine/peripheral");
    assert!(
        there.contains("mvm-usb-redirect-1") && there.contains("mvm-agent"),
        "{there:?}"
    );
    // QEMU tells nothing of these but by not refusing them: each is one of its words.
    let shown = command_line(&machine).shown().join(" ");
    for word in [
        "image-compression=auto_lz",
        "jpeg-wan-compression=never",
        "zlib-glz-wan-compression=always",
        "playback-compression=off",
        "streaming-video=filter",
        "disable-agent-file-xfer=on",
    ] {
        assert!(shown.contains(word), "{shown}");
    }
    session.quit();

    let text =
        "[display]\nclipboard = false\n[display.spice]\nsocket = true\nagent = false\ngl = false";
    let (mut session, machine) = runs(text, &[]).unwrap();
    assert!(machine.run_dir.join("spice.sock").exists());
    assert!(
        !session
            .names("/machine/peripheral")
            .contains("mvm-spice-agent")
    );
    session.quit();
}

/// The words of QEMU that mvm has for SPICE's, all of them.
#[test]
fn every_word_of_spice_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let plain = testing::real(dir.path(), "display.type = 'spice'", &testing::facts()).unwrap();
    if !installed(&plain) || !lists(&plain, "-display", "spice-app") {
        return;
    }
    for (images, wan, streaming) in [
        ("auto-glz", "auto", "off"),
        ("quic", "never", "all"),
        ("glz", "always", "filter"),
        ("lz", "auto", "off"),
        ("off", "auto", "off"),
    ] {
        runs_and_ends(
            &format!(
                "[display.spice]\nsocket = true\nimage-compression = '{images}'\njpeg-compression = '{wan}'\n\
                 zlib-compression = '{wan}'\nstreaming = '{streaming}'"
            ),
            &[],
        );
    }
}

#[test]
fn the_clipboard_of_a_guest_without_spice_is_qemus_own() {
    let text = "[display]\ntype = 'vnc'\nclipboard = true";
    let Some((mut session, _)) = runs(text, &[]) else {
        return;
    };
    let chardevs = session.call("query-chardev", json!({}));
    let agent = chardevs
        .as_array()
        .unwrap()
        .iter()
        .find(|chardev| chardev["label"] == "mvm-spice-agent");
    assert_eq!(agent.unwrap()["filename"], "qemu-vdagent", "{chardevs}");
    assert_eq!(
        properties(&mut session, "mvm-spice-agent", &["name"]),
        [json!("com.redhat.spice.0")]
    );
    session.quit();
}

#[test]
fn the_display_on_dbus_waits_for_viewers() {
    let text = "[display.dbus]\naudio = 'a'\n[audio.a]\nbackend = 'dbus'";
    let dir = tempfile::tempdir().unwrap();
    let machine = testing::real(dir.path(), text, &testing::facts()).unwrap();
    if !installed(&machine)
        || !lists(&machine, "-display", "dbus")
        || !lists(&machine, "-audiodev", "dbus")
    {
        return;
    }
    let (mut session, _) = runs(text, &[]).unwrap();
    let display = session.call("query-display-options", json!({}));
    assert_eq!(
        (&display["type"], &display["p2p"]),
        (&json!("dbus"), &json!(true)),
        "{display}"
    );
    assert_eq!(display["audiodev"], "audio-a");
    session.quit();
}

/// Waits for QEMU to say one of those words, and ends it.
fn says(machine: &Machine, args: &[String], words: &[&str]) {
    super::session::prepare(machine);
    let log = machine.run_dir.join("said");
    let mut child = Command::new(program(machine))
        .args(args)
        .arg("-S")
        .stdout(std::process::Stdio::null())
        .stderr(std::fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let started = std::time::Instant::now();
    let said = loop {
        let said = std::fs::read_to_string(&log).unwrap();
        let enough = words.iter().any(|words| said.contains(words));
        if enough || started.elapsed() > std::time::Duration::from_secs(20) {
            break said;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
    };
    // It may have ended by itself.
    let _ = child.kill();
    child.wait().unwrap();
    assert!(
        words.iter().any(|words| said.contains(words)),
        "{words:?}: {said}\n{args:?}"
    );
}

/// What needs the host's GPU, bus or sound is tried as far as QEMU goes where there is none: it names what is
/// missing, having understood all else.
#[test]
fn what_the_host_lacks_is_asked_for_there() {
    let mut facts = testing::facts();
    facts.sessions = vec![crate::host::Session {
        user: "ann".to_owned(),
        pulse: Some("/nowhere/native".into()),
        ..crate::host::Session::default()
    }];
    let no_gpu: &[&str] = &["no drm render node"];
    let mut tries = vec![
        (
            "[display.dbus]\naddress = 'unix:path=/nowhere'",
            "dbus",
            &["failed to connect to DBus"][..],
        ),
        (
            "[audio.a]\nbackend = 'pulseaudio'",
            "pa",
            &["pulseaudio: "][..],
        ),
    ];
    if !std::path::Path::new("/dev/dri").exists() {
        tries.extend([
            ("[display]\ntype = ['vnc', 'egl-headless']\n[display.egl-headless]\nrendernode = '/dev/dri/nosuch'", "egl-headless", no_gpu),
            ("[display.spice]\nsocket = true\ngl = true\nrendernode = '/dev/dri/nosuch'", "spice-app", no_gpu),
            ("[display.dbus]\ngl = true\nrendernode = '/dev/dri/nosuch'", "dbus", no_gpu),
        ]);
    }
    if !std::path::Path::new("/proc/asound").exists() {
        tries.push(("[audio.a]\nbackend = 'alsa'", "alsa", &["ALSA lib"]));
    }
    for (text, module, words) in tries {
        let dir = tempfile::tempdir().unwrap();
        let machine = testing::real(dir.path(), text, &facts).unwrap();
        let switch = if text.starts_with("[audio") {
            "-audiodev"
        } else {
            "-display"
        };
        if !installed(&machine) || !lists(&machine, switch, module) {
            continue;
        }
        says(&machine, &command_line(&machine).shown(), words);
    }
}

#[test]
fn a_guest_that_computes_on_the_gpu_wants_a_display_that_does() {
    let dir = tempfile::tempdir().unwrap();
    let text = "display.type = ['vnc', 'egl-headless']\n[video.v]\naccel-3d = true";
    let machine = testing::real(dir.path(), text, &testing::facts()).unwrap();
    if !installed(&machine) || !lists(&machine, "-display", "egl-headless") {
        return;
    }
    let args: Vec<String> = command_line(&machine).shown();
    let args: Vec<String> = args
        .into_iter()
        .map(|arg| {
            if arg == "egl-headless" {
                "none".to_owned()
            } else {
                arg
            }
        })
        .collect();
    says(
        &machine,
        &args,
        &["opengl is not available", "OpenGL support enabled"],
    );
}
