//! Consoles and channels: bytes go both ways, wherever they lead.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Instant;

use nix::pty::openpty;
use nix::sys::termios::{SetArg, cfmakeraw, tcgetattr, tcsetattr};
use serde_json::json;

use super::session::{DEADLINE, Session};
use super::{DISKS, runs};

/// A boot sector that greets at a serial port and echoes what comes there.
fn echo(port: u16) -> Vec<u8> {
    let [low, high] = port.to_le_bytes();
    let mut sector = vec![
        0xba, low, high, // mov dx, port
        0xb0, b'>', // mov al, '>'
        0xee, // out dx, al
        0xba, 0, 0,    // again: mov dx, port + 5
        0xec, // in al, dx
        0xa8, 0x01, // test al, 1
        0x74, 0xf8, // jz again
        0xba, low, high, // mov dx, port
        0xec, // in al, dx
        0xee, // out dx, al
        0xeb, 0xf1, // jmp again
    ];
    let [low, high] = (port + 5).to_le_bytes();
    (sector[7], sector[8]) = (low, high);
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector.resize(1 << 20, 0);
    sector
}

/// A terminal without rules of its own, and its other end.
fn pty() -> (File, File, String) {
    let pair = openpty(None, None).unwrap();
    let mut raw = tcgetattr(&pair.slave).unwrap();
    cfmakeraw(&mut raw);
    tcsetattr(&pair.slave, SetArg::TCSANOW, &raw).unwrap();
    let name = nix::unistd::ttyname(&pair.slave).unwrap();
    let name = name.to_str().unwrap().to_owned();
    (pair.master.into(), pair.slave.into(), name)
}

fn expect(stream: &mut impl Read, wanted: &[u8]) {
    let mut got = vec![0; wanted.len()];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(got, wanted);
}

/// The guest's serial port is one of the host: bytes go through both ways.
#[test]
fn a_serial_port_of_the_host_is_the_guests() {
    for (device, uart) in [("serial", 0x3f8), ("isa", 0x2f8)] {
        let (mut outside, _inside, name) = pty();
        let text = format!(
            "[disk.a]\nfile.path = \"a.img\"\nbus = \"ide\"\n[machine]\ntype = \"pc\"\n\
             [console.uart]\ndevice = \"{device}\"\nhost.device = \"{name}\"\n[console.main]\ndevice = \"{}\"\n",
            if device == "serial" {
                "virtio"
            } else {
                "serial"
            }
        );
        let Some((mut session, machine)) = runs(&text, DISKS) else {
            return;
        };
        let image = &machine.disks[0].image.as_ref().unwrap().path;
        std::fs::write(image, echo(uart)).unwrap();
        session.call("cont", json!({}));
        // SeaBIOS may have spoken before, on the first port.
        let mut byte = [0];
        while byte != [b'>'] {
            outside.read_exact(&mut byte).unwrap();
        }
        for line in [b"one\n".as_slice(), b"two\xff\x00\n"] {
            outside.write_all(line).unwrap();
            expect(&mut outside, line);
        }
        // A byte is sent on before it is written down.
        let log = machine.state_dir.join("log/console-uart.log");
        let started = Instant::now();
        while !std::fs::read(&log)
            .unwrap()
            .ends_with(b"one\ntwo\xff\x00\n")
        {
            assert!(started.elapsed() < DEADLINE);
            session.call("query-status", json!({}));
        }
        session.quit();
    }
}

fn frontends(session: &mut Session) -> Vec<(String, String)> {
    let all = session.call("query-chardev", json!({}));
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    let all = all.as_array().unwrap().iter();
    all.map(|one| (text(&one["label"]), text(&one["filename"])))
        .collect()
}

#[test]
fn every_end_is_where_the_profile_says() {
    let dir = tempfile::Builder::new().prefix("mvm").tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let daemon = UnixListener::bind(at("rpmb.sock")).unwrap();
    let (_outside, _inside, terminal) = pty();
    // Free when it is asked for.
    let port = |listener: TcpListener| listener.local_addr().unwrap().port();
    let here = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (listens, later) = (port(here()), port(here()));
    let there = here();
    let connects = there.local_addr().unwrap().port();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp_port = udp.local_addr().unwrap().port();
    let local = UdpSocket::bind("127.0.0.1:0").unwrap();
    let local_port = local.local_addr().unwrap().port();
    drop(local);
    std::fs::write(at("kept.log"), "before\n").unwrap();
    let text = format!(
        r#"
        [console.main]
        backend = "null"
        log = false
        [console.out]
        file = {{ path = "{}", append = true }}
        [console.new]
        device = "isa"
        file.path = "{}"
        [console.term]
        host.device = "{terminal}"
        [channel.rpmb0]
        unix.path = "{}"
        [channel.own]
        unix = {{ path = "{}", listen = true }}
        [channel.later]
        unix = {{ path = "{}", reconnect = 1 }}
        [channel.tcp]
        tcp = {{ port = {listens}, listen = true, telnet = true }}
        [channel.out]
        tcp = {{ address = "127.0.0.1", port = {connects} }}
        [channel.again]
        tcp = {{ port = {later}, reconnect = 2 }}
        [channel.udp]
        udp = {{ address = "127.0.0.1", port = {udp_port}, local-address = "127.0.0.1", local-port = {local_port} }}
        [channel.pty]
        backend = "pty"
        [channel.plain]
        "#,
        at("kept.log"),
        at("new.log"),
        at("rpmb.sock"),
        at("own.sock"),
        at("later.sock"),
    );
    let Some((mut session, machine)) = runs(&text, &[]) else {
        return;
    };
    let ends: std::collections::BTreeMap<String, String> =
        frontends(&mut session).into_iter().collect();
    let end = |name: &str| ends[name].as_str();
    assert_eq!(end("console-main"), "null");
    assert_eq!(end("console-out"), "file");
    assert_eq!(end("console-new"), "file");
    assert_eq!(end("console-term"), "serial");
    assert!(end("channel-pty").starts_with("pty:"), "{ends:?}");
    assert!(end("channel-own").contains(&at("own.sock")), "{ends:?}");
    assert!(end("channel-later").contains(&at("later.sock")), "{ends:?}");
    assert!(end("channel-tcp").contains("telnet:127.0.0.1"), "{ends:?}");
    assert!(
        end("channel-again").contains(&later.to_string()),
        "{ends:?}"
    );
    assert_eq!(end("channel-udp"), "udp");
    assert!(
        end("channel-plain").contains("channel-plain.sock"),
        "{ends:?}"
    );
    daemon.accept().unwrap();
    there.accept().unwrap();
    UnixStream::connect(at("own.sock")).unwrap();
    TcpStream::connect(("127.0.0.1", listens)).unwrap();
    // What was not there yet is found when it is.
    let late = UnixListener::bind(at("later.sock")).unwrap();
    late.set_nonblocking(true).unwrap();
    let started = Instant::now();
    while late.accept().is_err() {
        assert!(started.elapsed() < DEADLINE);
        std::thread::sleep(std::time::Duration::from_millis(20));
        session.call("query-status", json!({}));
    }
    assert!(UdpSocket::bind(("127.0.0.1", local_port)).is_err());
    assert!(
        std::fs::read_to_string(at("kept.log"))
            .unwrap()
            .starts_with("before")
    );
    assert!(std::path::Path::new(&at("new.log")).exists());
    let log = |name: &str| machine.state_dir.join(format!("log/console-{name}.log"));
    assert!(log("out").exists() && !log("main").exists());
    session.quit();
}
