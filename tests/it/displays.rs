//! Displays, looked at by programs that are not QEMU's and not mvm's.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::env::{TestEnv, eventually, finish, has_program};

/// How long a server may take to answer.
const ANSWER: Duration = Duration::from_secs(20);

/// A picture: width, height, and three bytes for each of its points.
struct Picture {
    width: usize,
    height: usize,
    points: Vec<[u8; 3]>,
}

impl Picture {
    fn colours(&self) -> usize {
        let mut points = self.points.clone();
        points.sort_unstable();
        points.dedup();
        points.len()
    }

    /// How many points are not as the first.
    fn drawn(&self) -> usize {
        let first = self.points[0];
        self.points.iter().filter(|point| **point != first).count()
    }

    /// A PPM file as QEMU and SPICE's tools write it.
    fn of_ppm(path: &Path) -> Self {
        let bytes = fs::read(path).expect("a picture");
        let mut words = Vec::new();
        let mut at = 0;
        while words.len() < 4 {
            let end = at
                + bytes[at..]
                    .iter()
                    .position(u8::is_ascii_whitespace)
                    .expect("a head");
            words.push(String::from_utf8_lossy(&bytes[at..end]).into_owned());
            at = end + 1;
        }
        assert_eq!((words[0].as_str(), words[3].as_str()), ("P6", "255"));
        let number = |text: &str| text.parse::<usize>().expect("a number");
        let points = bytes[at..]
            .chunks_exact(3)
            .map(|point| [point[0], point[1], point[2]]);
        Self {
            width: number(&words[1]),
            height: number(&words[2]),
            points: points.collect(),
        }
    }

    fn write_ppm(&self, path: &Path) {
        let mut bytes = format!("P6\n{} {}\n255\n", self.width, self.height).into_bytes();
        bytes.extend(self.points.iter().flatten());
        fs::write(path, bytes).expect("a picture");
    }
}

/// Takes one picture by RFB 3.8, without a password: the whole of it, uncompressed.
fn by_vnc(uri: &str) -> Picture {
    let address = uri.strip_prefix("vnc://").expect("a VNC server");
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(ANSWER)).expect("a deadline");
    let get = |stream: &mut TcpStream, count: usize| {
        let mut bytes = vec![0; count];
        stream.read_exact(&mut bytes).expect("an answer");
        bytes
    };
    let version = get(&mut stream, 12);
    assert_eq!(version, b"RFB 003.008\n");
    stream.write_all(&version).expect("it takes it");
    let kinds = usize::from(get(&mut stream, 1)[0]);
    assert!(
        get(&mut stream, kinds).contains(&1),
        "no password is asked for"
    );
    stream.write_all(&[1]).expect("it takes it");
    assert_eq!(get(&mut stream, 4), [0; 4]);
    // Others may look at the same time.
    stream.write_all(&[1]).expect("it takes it");
    let head = get(&mut stream, 24);
    let short = |at: usize| usize::from(u16::from_be_bytes([head[at], head[at + 1]]));
    let (width, height) = (short(0), short(2));
    let name = u32::from_be_bytes([head[20], head[21], head[22], head[23]]);
    get(&mut stream, usize::try_from(name).expect("short"));
    // 32 bits a point, little-endian, red highest; raw.
    let mut ask = vec![
        0, 0, 0, 0, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0,
    ];
    ask.extend([2, 0, 0, 1, 0, 0, 0, 0]);
    ask.extend([3, 0, 0, 0, 0, 0]);
    ask.extend(u16::try_from(width).expect("it came as one").to_be_bytes());
    ask.extend(u16::try_from(height).expect("it came as one").to_be_bytes());
    stream.write_all(&ask).expect("it takes it");
    let mut points = vec![[0; 3]; width * height];
    let mut left = width * height;
    while left > 0 {
        let kind = get(&mut stream, 1)[0];
        assert_eq!(kind, 0, "an update was asked for");
        let head = get(&mut stream, 3);
        for _ in 0..u16::from_be_bytes([head[1], head[2]]) {
            let head = get(&mut stream, 12);
            let short = |at: usize| usize::from(u16::from_be_bytes([head[at], head[at + 1]]));
            let (x, y, wide, high) = (short(0), short(2), short(4), short(6));
            assert_eq!(&head[8..], [0; 4], "raw was asked for");
            let bytes = get(&mut stream, wide * high * 4);
            for (index, point) in bytes.chunks_exact(4).enumerate() {
                let at = (y + index / wide) * width + x + index % wide;
                points[at] = [point[2], point[1], point[0]];
            }
            left = left.saturating_sub(wide * high);
        }
    }
    Picture {
        width,
        height,
        points,
    }
}

/// Where people can look at what the tests saw.
fn keep(picture: &Path, name: &str) {
    if let Some(dir) = std::env::var_os("MVM_TEST_PICTURES") {
        fs::copy(picture, Path::new(&dir).join(name)).expect("a copy");
    }
}

#[test]
fn a_booted_guest_is_seen_by_vnc_and_spice_and_takes_keys() {
    let Some(env) = TestEnv::with_guest("x86_64-full") else {
        return;
    };
    env.write(
        "config/profiles/seen.toml",
        "extends = ['demo']\n[display]\ntype = ['vnc', 'spice']\n[video.v]\nmodel = 'std'\n\
         [boot]\nappend = 'console=tty0 console=ttyS0 loglevel=7 panic=-1 no_timer_check nohz=off highres=off'\n",
    );
    env.mvm("start seen").exits(0);
    env.mvm("wait seen --for agent --timeout 120s").exits(0);
    let told = env.mvm("display seen --format json").exits(0).json();
    let vnc = told["vnc"].as_str().expect("VNC is there").to_owned();
    let spice = told["spice"].as_str().expect("SPICE is there").to_owned();
    assert!(vnc.starts_with("vnc://127.0.0.1:59"), "{told}");
    assert!(spice.starts_with("spice://127.0.0.1:59"), "{told}");
    let shown = env.mvm("show seen").exits(0).stdout;
    assert!(shown.contains(&vnc) && shown.contains(&spice), "{shown}");

    // The kernel's own console: text on black.
    let seen = by_vnc(&vnc);
    assert!(
        seen.width >= 640 && seen.height >= 400,
        "{} x {}",
        seen.width,
        seen.height
    );
    assert!(
        seen.drawn() > 2000 && seen.colours() < 64,
        "{} {}",
        seen.drawn(),
        seen.colours()
    );
    let file = env.path("vnc.ppm");
    seen.write_ppm(&file);
    keep(&file, "vnc.ppm");

    env.mvm("screenshot seen shot.png").exits(0);
    let png = fs::read(env.path("shot.png")).expect("a picture");
    let size = |at: usize| u32::from_be_bytes([png[at], png[at + 1], png[at + 2], png[at + 3]]);
    assert_eq!(
        (size(16) as usize, size(20) as usize),
        (seen.width, seen.height)
    );
    keep(&env.path("shot.png"), "shot.png");
    env.mvm("screenshot seen shot.ppm --video v --output 1")
        .exits(0);
    let shot = Picture::of_ppm(&env.path("shot.ppm"));
    assert_eq!((shot.width, shot.height), (seen.width, seen.height));
    assert!(shot.drawn() > 2000);
    env.mvm("screenshot seen shot.jpeg")
        .exits(2)
        .says(".png or .ppm");
    env.mvm("screenshot seen other.png --video nosuch").exits(1);
    assert!(!env.path("other.png").exists());

    if has_program("spicy-screenshot") {
        let file = env.path("spice.ppm");
        let done = Command::new("spicy-screenshot")
            .arg(format!("--uri={spice}"))
            .arg(format!("--out-file={}", file.display()))
            .stdin(Stdio::null())
            .output()
            .expect("it runs");
        assert!(file.exists(), "{}", String::from_utf8_lossy(&done.stderr));
        let seen = Picture::of_ppm(&file);
        assert!(
            seen.width >= 640 && seen.drawn() > 2000,
            "{} x {}",
            seen.width,
            seen.height
        );
        keep(&file, "spice.ppm");
    }

    // What is typed on its keyboard the guest's own kernel sees: /dev/input has the codes.
    env.run(&[
        "exec",
        "seen",
        "--",
        "sh",
        "-c",
        "(cat /dev/input/event* > /tmp/keys 2>/dev/null &) ; cat /proc/bus/input/devices",
    ])
    .exits(0);
    env.mvm("send-key seen ctrl-a b enter").exits(0);
    env.mvm("send-key seen ctl-a")
        .exits(2)
        .says("did you mean `ctrl`");
    let keys = "od -An -tu2 -w24 -v /tmp/keys 2>/dev/null";
    eventually("the guest sees the keys", ANSWER, || {
        let said = env.run(&["exec", "seen", "--", "sh", "-c", keys]).stdout;
        // Type 1 (a key), its code, 1 for pressed: left control, a, b, enter.
        let pressed: Vec<&str> = said
            .lines()
            .filter_map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                (words.get(8) == Some(&"1") && words.get(10) == Some(&"1")).then(|| words[9])
            })
            .collect();
        pressed == ["29", "30", "48", "28"]
    });
    env.mvm("pause seen").exits(0);
    env.mvm("send-key seen a").exits(1).says("is paused");
    env.mvm("kill seen").exits(0);
    env.mvm("display seen").exits(5);
}

#[test]
fn a_guest_without_a_display_says_so() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    env.write(
        "config/profiles/dark.toml",
        "extends = ['demo']\n[boot]\nkernel = ''\ninitrd = ''\nappend = ''\n",
    );
    env.mvm("start dark").exits(0);
    env.mvm("display dark").exits(1).says("--display vnc");
    env.mvm("screenshot dark x.png")
        .exits(1)
        .says("no video device");
    assert!(!env.path("x.png").exists());
    env.mvm("kill dark").exits(0);

    // Its screen can be looked at without any server.
    env.mvm("start dark --set video.v.model=std").exits(0);
    env.mvm("screenshot dark x.png").exits(0);
    env.mvm("kill dark").exits(0);
}

#[test]
fn a_password_is_asked_for_and_is_on_no_command_line() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    let password = env.path("password");
    env.write(
        "config/profiles/shut.toml",
        format!(
            "extends = ['demo']\n[display.vnc]\nlisten = '0.0.0.0'\npassword-file = '{}'\n\
             [boot]\nkernel = ''\ninitrd = ''\nappend = ''\n",
            password.display()
        ),
    );
    // What is not there is told before anything is done.
    let ran = env.mvm("run shut --dry-run").exits(4);
    ran.says("`display.vnc.password-file`").says("umask 077");
    env.write("password", "hushhush\n");
    env.mvm("start shut")
        .exits(0)
        .says("VNC listens on every network of this host, unencrypted");
    let uri = env.mvm("display shut").exits(0).stdout;
    let address = uri
        .trim()
        .strip_prefix("vnc://")
        .expect("a VNC server")
        .to_owned();
    let mut stream = TcpStream::connect(&address).expect("it listens");
    stream.set_read_timeout(Some(ANSWER)).expect("a deadline");
    let mut version = [0; 12];
    stream.read_exact(&mut version).expect("an answer");
    stream.write_all(&version).expect("it takes it");
    let mut kinds = [0; 2];
    stream.read_exact(&mut kinds).expect("an answer");
    // One way in: VNC's own challenge.
    assert_eq!(kinds, [1, 2]);
    stream.write_all(&[2]).expect("it takes it");
    let mut challenge = [0; 16];
    stream.read_exact(&mut challenge).expect("a challenge");
    stream
        .write_all(&answer(b"hushhush", &challenge))
        .expect("it takes it");
    let mut verdict = [0; 4];
    stream.read_exact(&mut verdict).expect("a verdict");
    assert_eq!(
        verdict, [0; 4],
        "the password is the file's, without the end of its line"
    );
    for pid in env.processes() {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&line).contains("hushhush"));
    }
    env.mvm("kill shut").exits(0);
}

/// The answer to VNC's challenge, by `openssl`: DES with the bits of each byte of the password mirrored.
fn answer(password: &[u8; 8], challenge: &[u8; 16]) -> Vec<u8> {
    let key: String = password
        .iter()
        .map(|byte| format!("{:02x}", byte.reverse_bits()))
        .collect();
    // DES thrice with one key is DES, which newer OpenSSLs keep elsewhere.
    let key = key.repeat(3);
    let mut child = Command::new("openssl")
        .args(["enc", "-des-ede3", "-nopad", "-K", &key])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("openssl");
    child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(challenge)
        .expect("it reads");
    child.wait_with_output().expect("it ends").stdout
}

/// An X server without a screen, whose picture is in a file, and which wants a cookie.
struct XServer {
    child: std::process::Child,
    display: String,
    cookie: std::path::PathBuf,
    picture: std::path::PathBuf,
}

impl XServer {
    fn start(env: &TestEnv) -> Option<Self> {
        if !has_program("Xvfb") {
            return None;
        }
        let field = |bytes: &[u8]| {
            let length = u16::try_from(bytes.len()).expect("short");
            [&length.to_be_bytes()[..], bytes].concat()
        };
        let text = [
            vec![0xff, 0xff],
            field(b""),
            field(b""),
            field(b"MIT-MAGIC-COOKIE-1"),
            field(b"0123456789abcdef"),
        ]
        .concat();
        let cookie = env.write("cookie", text);
        let mut child = Command::new("Xvfb")
            .args([
                "-displayfd",
                "1",
                "-screen",
                "0",
                "1024x768x24",
                "-nolisten",
                "tcp",
                "-auth",
            ])
            .arg(&cookie)
            .arg("-fbdir")
            .arg(env.path("."))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("it runs");
        let mut number = String::new();
        let mut stdout = child.stdout.take().expect("a pipe");
        let mut byte = [0];
        while stdout.read(&mut byte).expect("its display") == 1 && byte != [b'\n'] {
            number.push(char::from(byte[0]));
        }
        Some(Self {
            child,
            display: format!(":{number}"),
            cookie,
            picture: env.path("Xvfb_screen0"),
        })
    }

    /// The screen, from the XWD file that it is.
    fn picture(&self) -> Picture {
        let bytes = fs::read(&self.picture).expect("a picture");
        let word = |index: usize| {
            let at = index * 4;
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize
        };
        let (head, width, height, line, colours) = (word(0), word(4), word(5), word(12), word(19));
        let from = head + colours * 12;
        let mut points = Vec::new();
        for y in 0..height {
            let row = &bytes[from + y * line..from + y * line + width * 4];
            points.extend(
                row.chunks_exact(4)
                    .map(|point| [point[2], point[1], point[0]]),
            );
        }
        Picture {
            width,
            height,
            points,
        }
    }
}

impl Drop for XServer {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_window_opens_in_the_users_session() {
    let Some(env) = TestEnv::with_demo() else {
        return;
    };
    env.write(
        "config/profiles/window.toml",
        "extends = ['demo']\n[video.v]\nmodel = 'std'\n[boot]\nkernel = ''\ninitrd = ''\nappend = ''\n",
    );
    let Some(server) = XServer::start(&env) else {
        return;
    };
    let start = |more: &[&str]| {
        let words = [&["start", "window", "--display", "local"], more].concat();
        let mut command = env.command(&words);
        command
            .env("DISPLAY", &server.display)
            .env("XAUTHORITY", &server.cookie);
        finish(command)
    };
    let refused = start(&["--show-fps"]);
    if refused.stderr.contains("module") {
        eprintln!("skipped: this QEMU has no windows");
        return;
    }
    refused.exits(4).says("`show-fps`").says("Intel's QEMU");
    start(&["--connectors", "HDMI-1,DP-1"])
        .exits(4)
        .says("`connectors`");
    for toolkit in ["gtk", "sdl"] {
        let set = format!("display.local.toolkit={toolkit}");
        let mut words = vec!["--set", set.as_str()];
        words.extend(["--set", "display.local.show-cursor=true"]);
        // SDL asks a window manager for the whole screen, and this server has none.
        if toolkit == "gtk" {
            words.push("--full-screen");
            words.extend(["--set", "display.local.zoom-to-fit=true"]);
            words.extend(["--set", "display.local.show-tabs=true"]);
            words.extend(["--set", "display.local.show-menubar=false"]);
        }
        start(&words).exits(0);
        let options = env.mvm("qmp window query-display-options").exits(0).json();
        assert_eq!(options["type"], toolkit);
        assert_eq!(options["window-close"], false);
        assert_eq!(options["show-cursor"], true);
        if toolkit == "gtk" {
            assert_eq!(
                (&options["zoom-to-fit"], &options["show-tabs"]),
                (&true.into(), &true.into())
            );
            assert_eq!(options["show-menubar"], false);
            assert_eq!(options["full-screen"], true);
        }
        let told = env.mvm("display window").exits(0).stdout;
        assert!(
            told.contains(toolkit) && told.contains(&server.display),
            "{told}"
        );
        // What the BIOS writes is seen on the host's screen.
        eventually("the window shows the guest", ANSWER, || {
            let seen = server.picture();
            seen.drawn() > 500 && seen.colours() > 1
        });
        let file = env.path(format!("{toolkit}.ppm"));
        server.picture().write_ppm(&file);
        keep(&file, &format!("{toolkit}.ppm"));
        env.mvm("kill window").exits(0);
    }
    // Without a session there is none to open one in.
    env.mvm("start window --display local --set display.local.user=nosuch")
        .exits(4)
        .says("`nosuch` has no graphical session");
}
