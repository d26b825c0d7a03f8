//! A world of its own for a test: empty folders in place of everything that mvm keeps.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;
use tempfile::TempDir;

/// The folders, gone when this is dropped.
pub(crate) struct TestEnv {
    root: TempDir,
}

/// What a command did.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// The same, having checked the exit code.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(
            self.code, code,
            "stdout:\n{}\nstderr:\n{}",
            self.stdout, self.stderr
        );
        self
    }

    /// stdout as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {:?}\n{}", self.stdout, self.stderr))
    }

    /// Checks that stderr says that.
    #[track_caller]
    pub(crate) fn says(self, text: &str) -> Self {
        assert!(
            self.stderr.contains(text),
            "`{text}` not in:\n{}",
            self.stderr
        );
        self
    }
}

impl TestEnv {
    pub(crate) fn new() -> Self {
        let env = Self {
            root: tempfile::Builder::new()
                .prefix("mvm-it-")
                .tempdir()
                .expect("a temporary folder"),
        };
        for name in ["config/machines", "config/profiles", "home", "state/images"] {
            fs::create_dir_all(env.path(name)).expect("a folder");
        }
        env
    }

    /// A path in this world.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.root.path().join(name)
    }

    /// Where relative disk names are looked up.
    pub(crate) fn image(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path("state/images").join(name)
    }

    /// Writes a file and gives its path back.
    pub(crate) fn write(&self, name: impl AsRef<Path>, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
        fs::write(&path, text).expect("a file");
        path
    }

    /// The command, ready to be run or spawned.
    pub(crate) fn command<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mvm"));
        command
            .args(args)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("home"))
            .env("MVM_CONFIG_DIR", self.path("config"))
            .env("MVM_STATE_DIR", self.path("state"))
            .env("MVM_RUNTIME_DIR", self.path("run"))
            .env("MVM_HOST_DIR", self.path("host"))
            .env("MVM_CACHE_DIR", self.path("cache"))
            .current_dir(self.root.path())
            .stdin(Stdio::null());
        // Another QEMU than the one in PATH can be what is tested.
        for name in ["MVM_QEMU_X86_64", "MVM_QEMU_AARCH64", "LD_LIBRARY_PATH"] {
            command.envs(std::env::var_os(name).map(|value| (name, value)));
        }
        command
    }

    /// Runs `mvm` to its end.
    pub(crate) fn run<S: AsRef<std::ffi::OsStr>>(&self, args: &[S]) -> Ran {
        finish(self.command(args))
    }

    /// Runs `mvm` with words that hold no spaces.
    pub(crate) fn mvm(&self, line: &str) -> Ran {
        self.run(&line.split_whitespace().collect::<Vec<_>>())
    }

    /// Every file below the root with its size, mode and time of change: equal trees, nothing touched. The
    /// cache is left out: what is in it may be made anew at any time.
    pub(crate) fn tree(&self) -> BTreeMap<PathBuf, (u64, u32, i64, i64)> {
        let mut tree = BTreeMap::new();
        let mut folders = vec![self.root.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                let meta = fs::symlink_metadata(&path).expect("it is there");
                if path == self.path("cache") {
                    continue;
                }
                if meta.is_dir() {
                    folders.push(path.clone());
                }
                let size = if meta.is_dir() { 0 } else { meta.len() };
                tree.insert(path, (size, meta.mode(), meta.mtime(), meta.mtime_nsec()));
            }
        }
        tree
    }
}

/// What a failed test left running is ended.
impl Drop for TestEnv {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
        }
        // A supervisor that is about to start its QEMU is met before or after it: twice.
        for _ in 0..2 {
            for pid in self.processes() {
                kill(pid, Signal::SIGKILL);
            }
        }
    }
}

impl TestEnv {
    /// The ends of what the guests and their supervisors wrote: all that is left of a test that fails elsewhere.
    fn print_logs(&self) {
        const TAIL: usize = 3000;
        let guests = fs::read_dir(self.path("state")).into_iter().flatten();
        let folders = guests.flatten().map(|guest| guest.path().join("log"));
        let files = folders.flat_map(|folder| fs::read_dir(folder).into_iter().flatten());
        for path in files.flatten().map(|file| file.path()) {
            let text = fs::read(&path).unwrap_or_default();
            let tail = &text[text.len().saturating_sub(TAIL)..];
            eprintln!("--- {}\n{}", path.display(), String::from_utf8_lossy(tail));
        }
    }

    /// Every process that was started in this world, by its environment.
    pub(crate) fn processes(&self) -> Vec<i32> {
        let root = self.root.path().as_os_str().as_encoded_bytes();
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let ours = all.filter(|process| {
            fs::read(process.path().join("environ"))
                .is_ok_and(|text| text.windows(root.len()).any(|part| part == root))
        });
        ours.filter_map(|process| process.file_name().to_str()?.parse().ok())
            .collect()
    }

    /// Puts the demo guest's files where the profile `demo` looks for them; `None` where the guest cannot
    /// be made here, which `MVM_TEST_ALL` turns into a failure.
    pub(crate) fn with_demo() -> Option<Self> {
        Self::with_guest("x86_64")
    }

    /// The same with another of the x86_64 guests in its place.
    pub(crate) fn with_guest(variant: &str) -> Option<Self> {
        if !has_program("qemu-system-x86_64") {
            return None;
        }
        let folder = made_guest(variant)?;
        let env = Self::new();
        fs::create_dir_all(env.image("demo")).expect("a folder");
        for name in ["kernel", "initrd"] {
            std::os::unix::fs::symlink(folder.join(name), env.image("demo").join(name))
                .expect("a link");
        }
        Some(env)
    }

    /// A machine file `NAME` for the Debian guest, which has systemd: with disks of its own, one of them swap.
    pub(crate) fn with_debian(name: &str) -> Option<Self> {
        if !has_program("qemu-system-x86_64") {
            return None;
        }
        let folder = made_guest("debian")?;
        let env = Self::new();
        for disk in ["rootfs.ext4", "swap.raw"] {
            // Holes stay holes.
            let copied = Command::new("cp")
                .args(["--sparse=always", "--no-preserve=mode"])
                .arg(folder.join(disk))
                .arg(env.image(disk))
                .status();
            assert!(copied.expect("cp").success(), "{disk} cannot be copied");
        }
        for file in ["kernel", "initrd"] {
            std::os::unix::fs::symlink(folder.join(file), env.image(file)).expect("a link");
        }
        env.write(
            format!("config/machines/{name}.toml"),
            "extends = [\"linux\"]\n\
             [machine]\ntype = \"pc\"\n\
             [cpu]\ncount = 1\n\
             [memory]\nsize = \"512M\"\n\
             [boot]\nkernel = \"kernel\"\ninitrd = \"initrd\"\nappend = \"console=ttyS0 no_timer_check nohz=off highres=off\"\n\
             [network.lan]\nnone = {}\n\
             [agent]\nenabled = true\n\
             [disk.root]\nfile = { path = \"rootfs.ext4\", format = \"raw\" }\n\
             [disk.swap]\nfile = { path = \"swap.raw\", format = \"raw\" }\n",
        );
        Some(env)
    }

    /// A machine file `NAME` for a guest that UEFI starts under secure boot, with a TPM: all that it runs is signed.
    pub(crate) fn with_secure_boot(name: &str) -> Option<Self> {
        if !has_program("qemu-system-x86_64") || !has_program("swtpm") {
            return None;
        }
        let folder = made_guest("secureboot")?;
        let env = Self::new();
        std::os::unix::fs::symlink(folder.join("esp.img"), env.image("esp.img")).expect("a link");
        env.write(
            format!("config/machines/{name}.toml"),
            "extends = [\"base\"]\n\
             [machine]\narch = \"x86_64\"\ntype = \"q35\"\n\
             [memory]\nsize = \"512M\"\n\
             [firmware]\nsecure-boot = true\n\
             [tpm]\nemulator = {}\n\
             [agent]\nenabled = true\n\
             [disk.esp]\nfile = { path = \"esp.img\", format = \"raw\" }\nephemeral = true\n",
        );
        Some(env)
    }

    /// The guest's line in the list.
    #[track_caller]
    pub(crate) fn row(&self, name: &str) -> serde_json::Value {
        let list = self.mvm("list --format json").exits(0).json();
        let mut rows = list.as_array().expect("an array").iter();
        rows.find(|row| row["name"] == name)
            .cloned()
            .unwrap_or_default()
    }

    /// A command typed into the guest's console, and what the guest printed until `done`.
    #[track_caller]
    pub(crate) fn type_in(&self, guest: &str, line: &str) -> String {
        // One of its own for each line: a new client is shown what the console said before.
        static LINES: AtomicU32 = AtomicU32::new(0);
        let number = LINES.fetch_add(1, Ordering::Relaxed);
        let done = format!("typed-and-done-{number}");
        let begun = format!("typed-{number}-begun");
        let args = ["console", guest, "--until", &done, "--timeout", "60s"];
        let mut child = self
            .command(&args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("mvm starts");
        let mut stdin = child.stdin.take().expect("it was piped");
        // Split, so that the echo of the line is not taken for its result.
        writeln!(
            stdin,
            "echo typed-{number}-''begun; {line}; echo typed-and-''done-{number}"
        )
        .expect("the console takes it");
        let ran = ran(child.wait_with_output().expect("it ends")).exits(0);
        match ran.stdout.split_once(&begun) {
            Some((_, said)) => said.to_owned(),
            None => panic!("{}", ran.stdout),
        }
    }
}

/// A guest's folder: made once by Debian's packages, then from a cache.
fn made_guest(variant: &str) -> Option<PathBuf> {
    static MADE: Mutex<BTreeMap<String, Option<PathBuf>>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let one = || {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guest");
        let mut script = match variant {
            "debian" | "secureboot" => Command::new(format!("{folder}/{variant}.sh")),
            _ => Command::new(format!("{folder}/make.sh")),
        };
        if !matches!(variant, "debian" | "secureboot") {
            script.arg(variant);
        }
        let output = script.output().ok()?;
        let path = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        if output.status.success() && Path::new(&path).join("version").is_file() {
            return Some(PathBuf::from(path));
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            std::env::var_os("MVM_TEST_ALL").is_none(),
            "no guest {variant}: {said}"
        );
        eprintln!("skipped: the guest {variant} cannot be made: {said}");
        None
    };
    made.entry(variant.to_owned()).or_insert_with(one).clone()
}

/// Sends a signal to a process that the test knows.
pub(crate) fn kill(pid: i32, signal: Signal) {
    // It may just have ended by itself.
    let _ = nix::sys::signal::kill(Pid::from_raw(pid), signal);
}

/// Runs the command to its end, which must come: nothing of mvm may hang for ever.
#[track_caller]
pub(crate) fn finish(mut command: Command) -> Ran {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("mvm starts");
    let pid = i32::try_from(child.id()).expect("an id");
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || tell.send(child.wait_with_output()));
    match told.recv_timeout(Duration::from_secs(150)) {
        Ok(output) => ran(output.expect("it can be waited for")),
        Err(_) => {
            kill(pid, Signal::SIGTERM);
            panic!("it did not end: {command:?}");
        }
    }
}

/// A finished process as text.
pub(crate) fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Waits until the thing is so; a generous limit, as the machine may be busy.
#[track_caller]
pub(crate) fn eventually(what: &str, limit: Duration, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Whether a program is in PATH: a test that needs it says so and is skipped where it is missing.
pub(crate) fn has_program(name: &str) -> bool {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|folder| folder.join(name).is_file()));
    if !found {
        // What is skipped silently is believed to have passed.
        assert!(
            std::env::var_os("MVM_TEST_ALL").is_none(),
            "{name} is missing and MVM_TEST_ALL asks for every test"
        );
        eprintln!("skipped: {name} is not installed");
    }
    found
}
