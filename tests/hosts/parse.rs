//! The format of `.tree` files: `README.md` tells it.

use std::collections::BTreeMap;
use std::path::Path;

use super::pci::{self, PciSpec};
use super::tree::{Node, Tree};
use super::usb;

/// A tree that is being read, with what its sections say about one another.
#[derive(Default)]
pub(super) struct Builder {
    pub(super) tree: Tree,
    /// Where devices are: by PCI address, by USB name.
    pub(super) places: BTreeMap<String, String>,
    pub(super) pci: Vec<PciSpec>,
    /// The CPUs of the host, and of each NUMA node.
    pub(super) cpus: String,
    pub(super) nodes: BTreeMap<i32, String>,
    /// Nothing is derived from the names of directories: the tree was captured with all that it has.
    raw: bool,
    /// The IOMMU of devices that do not name one.
    pub(super) iommu: Option<String>,
}

/// The words of a section's head: `[pci 0000:00:02.0 id=8086:a780 driver=i915]`.
pub(super) struct Head<'a> {
    words: Vec<&'a str>,
}

impl<'a> Head<'a> {
    /// The `n`th word that is not `key=value`; the kind of the section is the first.
    pub(super) fn word(&self, n: usize) -> &'a str {
        self.words
            .iter()
            .filter(|w| !w.contains('='))
            .nth(n)
            .unwrap_or_else(|| panic!("a word is missing in [{}]", self.words.join(" ")))
    }

    /// The value of a key; `+` stands for a space.
    pub(super) fn get(&self, key: &str) -> Option<String> {
        self.words.iter().find_map(|word| {
            let (k, v) = word.split_once('=')?;
            (k == key).then(|| v.replace('+', " "))
        })
    }

    /// A number in a key: decimal, or hexadecimal after `0x`.
    pub(super) fn number(&self, key: &str) -> Option<u64> {
        let text = self.get(key)?;
        let number = match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16),
            None => text.parse(),
        };
        Some(number.unwrap_or_else(|_| panic!("{key}={text} is not a number")))
    }

    /// Fails at a key that no section of this kind has.
    pub(super) fn knows(&self, keys: &[&str]) {
        for word in &self.words {
            if let Some((key, _)) = word.split_once('=') {
                assert!(keys.contains(&key), "{key}= is not known here");
            }
        }
    }
}

/// A line of a section, taken apart.
pub(super) enum Line {
    File(String, Vec<u8>),
    Link(String, String),
    Dir(String),
    Boot(String, String),
}

/// Reads a file and those it includes.
pub(super) fn read(path: &Path) -> Tree {
    let mut builder = Builder::default();
    builder.read(path);
    pci::finish(&mut builder);
    let folder = path.parent().unwrap();
    let ids = "/usr/share/misc/pci.ids";
    if folder.join("pci.ids").exists() && !builder.tree.nodes.contains_key(ids) {
        builder
            .tree
            .file(ids, std::fs::read(folder.join("pci.ids")).unwrap());
    }
    builder.tree.nodes.retain(|path, _| path != "/");
    builder.tree
}

impl Builder {
    fn read(&mut self, path: &Path) {
        let text =
            std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut lines = text.lines().enumerate().peekable();
        let mut section: Vec<String> = Vec::new();
        while let Some((number, line)) = lines.next() {
            let at = format!("{}:{}", path.display(), number + 1);
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            // Lines that are indented belong to the one before.
            let mut more = Vec::new();
            while let Some((_, next)) = lines.next_if(|(_, next)| next.starts_with("  ")) {
                more.push(&next[2..]);
            }
            let _at = At(&at);
            if let Some(head) = line.strip_prefix('[') {
                section = self.section(head.strip_suffix(']').expect("a head ends in ]"));
            } else if line == "raw" {
                self.raw = true;
            } else if let Some(name) = line.strip_prefix("include ") {
                self.read(&path.with_file_name(format!("{}.tree", name.trim())));
                section = Vec::new();
            } else if let Some(what) = remove_directive(line) {
                for what in braces(what.trim()) {
                    let what = self.place(&what);
                    self.tree.remove(&what);
                }
            } else {
                assert!(!section.is_empty(), "a line before any section");
                for dir in &section {
                    for line in self.line(line, &more) {
                        self.put(dir, line);
                    }
                }
            }
        }
    }

    /// Opens a section: makes what its head says, tells the directories that its lines are for.
    fn section(&mut self, head: &str) -> Vec<String> {
        if head == "boot" {
            return vec![String::new()];
        }
        if head.starts_with('/') || head.starts_with('@') {
            return braces(head)
                .iter()
                .map(|one| {
                    let dir = self.place(one);
                    self.tree.dir(&dir);
                    self.class_member(&dir);
                    dir
                })
                .collect();
        }
        let head = Head {
            words: head.split_whitespace().collect(),
        };
        vec![match head.word(0) {
            "pci" => pci::section(self, &head),
            "usb" => usb::section(self, &head),
            "driver" => {
                let (bus, name) = (head.word(1), head.word(2));
                let module = head.get("module");
                self.driver(bus, name, module.as_deref());
                format!("/sys/bus/{bus}/drivers/{name}")
            }
            "host" => self.host(&head),
            kind => panic!("there is no section of the kind {kind}"),
        }]
    }

    /// `[host cpus=0-15 node0=0-7 node1=8-15 iommu=dmar1]`: what holds for the whole host.
    fn host(&mut self, head: &Head<'_>) -> String {
        head.knows(&["cpus", "node0", "node1", "iommu"]);
        self.cpus = head.get("cpus").unwrap_or_else(|| "0-3".to_owned());
        self.iommu = head.get("iommu");
        for file in ["online", "possible", "present"] {
            self.tree.attr("/sys/devices/system/cpu", file, &self.cpus);
        }
        for node in [0, 1] {
            if let Some(cpus) = head.get(&format!("node{node}")) {
                let dir = format!("/sys/devices/system/node/node{node}");
                self.tree.attr(&dir, "cpulist", &cpus);
                self.nodes.insert(node, cpus);
            }
        }
        for (at, empty) in [
            ("/sys/bus/pci", "drivers_probe"),
            ("/sys/bus/pci", "rescan"),
        ] {
            self.tree.file(format!("{at}/{empty}"), "");
        }
        self.tree.attr("/sys/bus/pci", "drivers_autoprobe", 1);
        self.tree.dir("/sys/bus/pci/drivers");
        self.tree.dir("/sys/bus/pci/devices");
        "/".to_owned()
    }

    /// A driver's directory on its bus, and its module's.
    pub(super) fn driver(&mut self, bus: &str, name: &str, module: Option<&str>) {
        let dir = format!("/sys/bus/{bus}/drivers/{name}");
        for file in ["bind", "unbind", "uevent"] {
            self.tree.file(format!("{dir}/{file}"), "");
        }
        if bus == "pci" || bus == "usb" {
            for file in ["new_id", "remove_id"] {
                self.tree.file(format!("{dir}/{file}"), "");
            }
        }
        if name == "vfio-pci" {
            self.tree.dir("/sys/class/vfio");
            self.tree.dir("/sys/class/vfio-dev");
        }
        let module = module.map_or_else(|| name.replace('-', "_"), str::to_owned);
        if module != "none" {
            let at = format!("/sys/module/{module}");
            self.tree.link(format!("{dir}/module"), &at);
            self.tree.attr(&at, "initstate", "live");
            self.tree.link(format!("{at}/drivers/{bus}:{name}"), &dir);
        }
    }

    /// A directory whose parent is named as a class is a device of that class.
    fn class_member(&mut self, dir: &str) {
        const CLASSES: [&str; 12] = [
            "net",
            "drm",
            "sound",
            "hwmon",
            "nvme",
            "block",
            "graphics",
            "tty",
            "ptp",
            "bluetooth",
            "infiniband",
            "scsi_host",
        ];
        let mut parts = dir.rsplitn(3, '/');
        let (name, kind) = (parts.next().unwrap(), parts.next().unwrap());
        let Some(above) = parts.next() else { return };
        if self.raw || !above.starts_with("/sys/devices") {
            return;
        }
        // A namespace is a block device below its controller, a partition one below its disk.
        let disk = |n: &str| {
            n.strip_prefix("nvme").is_some_and(|n| n.contains('n')) || n.starts_with("sd")
        };
        let class = match kind {
            kind if CLASSES.contains(&kind) => kind,
            kind if disk(kind) || (kind.starts_with("nvme") && disk(name)) => "block",
            _ => return,
        };
        self.tree
            .link(format!("{dir}/subsystem"), format!("/sys/class/{class}"));
        self.tree.link(format!("/sys/class/{class}/{name}"), dir);
        if class == "block" && !disk(kind) {
            self.tree.link(format!("/sys/block/{name}"), dir);
        }
        if disk(kind) || above.contains("/virtual") {
            return;
        }
        let device = if CLASSES.contains(&kind) {
            above.to_owned()
        } else {
            format!("{above}/{kind}")
        };
        self.tree.link(format!("{dir}/device"), device);
    }

    /// `@0000:00:02.0/drm/card0` as a path; an absolute one stays.
    pub(super) fn place(&self, text: &str) -> String {
        let Some(text) = text.strip_prefix('@') else {
            return text.to_owned();
        };
        let (device, rest) = text.split_once('/').map_or((text, ""), |(d, r)| (d, r));
        let place = self
            .places
            .get(device)
            .unwrap_or_else(|| panic!("{device} is not described above this line"));
        if rest.is_empty() {
            place.clone()
        } else {
            format!("{place}/{rest}")
        }
    }

    fn line(&self, line: &str, more: &[&str]) -> Vec<Line> {
        let Some((names, rest)) = line.split_once(' ') else {
            let names = line.strip_suffix('/').unwrap_or_else(|| {
                panic!("`{line}` is none of `file = text`, `link -> target`, `dir/`")
            });
            return braces(names).into_iter().map(Line::Dir).collect();
        };
        let (kind, text) = rest.split_once(' ').unwrap_or((rest, ""));
        let bytes = match kind {
            "<-" => return vec![Line::Boot(self.place(names), format!("{text}\n"))],
            "->" => {
                let target = self.place(text);
                let link = |name| Line::Link(name, target.clone());
                return braces(names).into_iter().map(link).collect();
            }
            ":" => unhex(&format!("{text} {}", more.join(" "))),
            "|" => (more.join("\n") + "\n").into_bytes(),
            "=" if text.is_empty() => Vec::new(),
            "=" => match text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) {
                Some(exact) => unescape(exact).into_bytes(),
                None => format!("{text}\n").into_bytes(),
            },
            _ => panic!("`{line}` is none of `file = text`, `link -> target`, `dir/`"),
        };
        braces(names)
            .into_iter()
            .map(|name| Line::File(name, bytes.clone()))
            .collect()
    }

    fn put(&mut self, dir: &str, line: Line) {
        let at = |name: String| format!("{}/{name}", dir.trim_end_matches('/'));
        match line {
            Line::File(name, bytes) => self.tree.file(at(name), bytes),
            Line::Link(name, to) => self.tree.link(at(name), to),
            Line::Dir(name) => {
                self.tree.nodes.insert(at(name), Node::Dir);
            }
            Line::Boot(path, value) => self.tree.boot.push((path, value)),
        }
    }
}

/// `vf{1..3}/gt{0,1}` as the names it stands for.
pub(super) fn braces(text: &str) -> Vec<String> {
    let Some((before, rest)) = text.split_once('{') else {
        return vec![text.to_owned()];
    };
    let (inside, after) = rest.split_once('}').expect("a { is closed by a }");
    let choices: Vec<String> = match inside.split_once("..") {
        Some((from, to)) => {
            let (from, to): (u32, u32) = (from.parse().unwrap(), to.parse().unwrap());
            (from..=to).map(|n| n.to_string()).collect()
        }
        None => inside.split(',').map(str::to_owned).collect(),
    };
    let ends = braces(after);
    choices
        .iter()
        .flat_map(|choice| ends.iter().map(move |end| format!("{before}{choice}{end}")))
        .collect()
}

/// What `remove /path` or `remove @device/path` takes away; `remove =` is a file of that name.
fn remove_directive(line: &str) -> Option<&str> {
    let what = line.strip_prefix("remove ")?;
    what.starts_with(['/', '@']).then_some(what)
}

/// Tells where in the file a panic came from.
struct At<'a>(&'a str);

impl Drop for At<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("at {}", self.0);
        }
    }
}

/// Bytes in hexadecimal; spaces are free.
pub(super) fn unhex(text: &str) -> Vec<u8> {
    let digits: String = text.split_whitespace().collect();
    assert!(digits.len() % 2 == 0, "an odd number of hexadecimal digits");
    (0..digits.len() / 2)
        .map(|i| {
            u8::from_str_radix(&digits[2 * i..2 * i + 2], 16)
                .unwrap_or_else(|_| panic!("{} is not hexadecimal", &digits[2 * i..2 * i + 2]))
        })
        .collect()
}

fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('0') => out.push('\0'),
                Some(other) => out.push(other),
                None => panic!("a text ends in a single backslash"),
            },
            (c, false) => out.push(c),
        }
    }
    out
}
