//! Finding and reading the descriptors.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use include_dir::{Dir, include_dir};
use serde::Deserialize;

use super::{Descriptor, FirmwareFacts, FlashFile, FlashMode, Interface, Mapping, Target};
use crate::host::facts::Roots;

static OWN: Dir<'static> = include_dir!("$CARGO_MANIFEST_DIR/firmware");

/// The schema, as far as mvm uses it. What is new in it is not an error.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Document {
    #[serde(default)]
    description: String,
    interface_types: Vec<String>,
    mapping: MappingDocument,
    targets: Vec<Target>,
    #[serde(default)]
    features: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct MappingDocument {
    device: String,
    #[serde(default)]
    mode: FlashMode,
    executable: Option<FlashFile>,
    nvram_template: Option<FlashFile>,
    filename: Option<PathBuf>,
}

impl FirmwareFacts {
    /// Reads all descriptors of the host, then mvm's own.
    pub fn read(roots: &Roots) -> Self {
        let mut facts = Self::default();
        for (name, path) in host_files(roots, &mut facts.notes) {
            let text = match std::fs::read_to_string(&path) {
                Ok(text) => text,
                Err(e) => {
                    facts
                        .notes
                        .push(format!("{} cannot be read: {e}", path.display()));
                    continue;
                }
            };
            // An empty file is there to hide the one of the same name in a later folder.
            if text.trim().is_empty() {
                facts.notes.push(format!("{} hides {name}", path.display()));
                continue;
            }
            let origin = path.display().to_string();
            match parse(&text, origin).and_then(|d| with_files(roots, d)) {
                Ok(descriptor) => facts.descriptors.push(descriptor),
                Err(why) => facts.notes.push(format!("{}: {why}", path.display())),
            }
        }
        facts.descriptors.extend(own(roots));
        facts
    }
}

/// The host's descriptor files by name, each in the most specific folder that has it.
fn host_files(roots: &Roots, notes: &mut Vec<String>) -> BTreeMap<String, PathBuf> {
    let mut dirs = Vec::new();
    if let Some(config) = &roots.user_config {
        dirs.push(config.join("qemu/firmware"));
    }
    dirs.push(roots.path("/etc/qemu/firmware"));
    dirs.push(roots.path("/usr/share/qemu/firmware"));
    let mut files = BTreeMap::new();
    for dir in dirs {
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => {
                notes.push(format!("{} cannot be read: {e}", dir.display()));
                continue;
            }
        };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if Path::new(&name).extension().is_some_and(|e| e == "json") {
                files.entry(name).or_insert_with(|| entry.path());
            }
        }
    }
    files
}

/// mvm's own, of which only those can be used whose files this host has.
fn own(roots: &Roots) -> Vec<Descriptor> {
    let mut files: Vec<_> = OWN.files().collect();
    files.sort_by_key(|f| f.path());
    let parsed = files.into_iter().filter_map(|file| {
        let name = format!("built-in:{}", file.path().display());
        parse(file.contents_utf8()?, name).ok()
    });
    parsed.filter_map(|d| with_files(roots, d).ok()).collect()
}

fn parse(text: &str, origin: String) -> Result<Descriptor, String> {
    let document: Document =
        serde_json::from_str(text).map_err(|e| format!("it is not a firmware descriptor: {e}"))?;
    let interfaces = document.interface_types.iter();
    let interfaces = interfaces.filter_map(|i| interface(i)).collect();
    let mapping = document.mapping;
    let missing = |what| format!("its mapping lacks `{what}`");
    let mapping = match mapping.device.as_str() {
        "flash" => Mapping::Flash {
            executable: mapping.executable.ok_or_else(|| missing("executable"))?,
            nvram_template: match mapping.mode {
                FlashMode::Split => {
                    let template = mapping.nvram_template;
                    Some(template.ok_or_else(|| missing("nvram-template"))?)
                }
                FlashMode::Combined | FlashMode::Stateless => None,
            },
            mode: mapping.mode,
        },
        "kernel" => Mapping::Kernel {
            filename: mapping.filename.ok_or_else(|| missing("filename"))?,
        },
        "memory" => Mapping::Memory {
            filename: mapping.filename.ok_or_else(|| missing("filename"))?,
        },
        other => return Err(format!("mvm does not know its mapping `{other}`")),
    };
    Ok(Descriptor {
        origin,
        description: document.description,
        interfaces,
        mapping,
        targets: document.targets,
        features: document.features,
    })
}

fn interface(name: &str) -> Option<Interface> {
    Some(match name {
        "bios" => Interface::Bios,
        "uefi" => Interface::Uefi,
        "openfirmware" => Interface::Openfirmware,
        "uboot" => Interface::Uboot,
        _ => return None,
    })
}

/// The descriptor, if all its files are there.
fn with_files(roots: &Roots, descriptor: Descriptor) -> Result<Descriptor, String> {
    let missing = descriptor.files().find(|f| !roots.path(f).is_file());
    match missing.map(|f| f.display().to_string()) {
        Some(file) => Err(format!("there is no {file}")),
        None => Ok(descriptor),
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a panic is a failed test")]
    use super::*;
    use crate::host::Sysfs;
    use std::fs;

    fn put(dir: &Path, file: &str, text: &str) {
        let path = dir.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn roots(dir: &Path) -> Roots {
        Roots {
            sysfs: Sysfs::at(dir.join("sys")),
            root: dir.to_owned(),
            cache: None,
            user_config: Some(dir.join("home/.config")),
            around_devices: None,
            leases: "/nowhere".into(),
        }
    }

    fn descriptor(description: &str, code: &str) -> String {
        format!(
            r#"{{"description": "{description}", "interface-types": ["uefi", "telepathy"],
            "mapping": {{"device": "flash", "executable": {{"filename": "{code}", "format": "raw"}},
              "nvram-template": {{"filename": "/v.fd", "format": "raw"}}}},
            "targets": [{{"architecture": "x86_64", "machines": ["pc-q35-*"]}}],
            "features": ["acpi-s3"], "tags": [], "something-new": 1}}"#
        )
    }

    #[test]
    fn earlier_folders_mask_and_hide() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        put(at, "c.fd", "");
        put(at, "v.fd", "");
        let share = "usr/share/qemu/firmware";
        put(
            at,
            &format!("{share}/10-a.json"),
            &descriptor("share a", "/c.fd"),
        );
        put(
            at,
            &format!("{share}/20-b.json"),
            &descriptor("share b", "/c.fd"),
        );
        put(
            at,
            &format!("{share}/30-c.json"),
            &descriptor("share c", "/c.fd"),
        );
        put(at, &format!("{share}/README"), "not looked at");
        put(
            at,
            "etc/qemu/firmware/20-b.json",
            &descriptor("etc b", "/c.fd"),
        );
        put(at, "etc/qemu/firmware/30-c.json", "\n");
        put(
            at,
            "home/.config/qemu/firmware/05-mine.json",
            &descriptor("mine", "/c.fd"),
        );
        let facts = FirmwareFacts::read(&roots(at));
        let found: Vec<_> = facts
            .descriptors
            .iter()
            .map(|d| d.description.as_str())
            .collect();
        assert_eq!(found, ["mine", "share a", "etc b"]);
        assert!(
            facts.notes.len() == 1 && facts.notes[0].ends_with("hides 30-c.json"),
            "{:?}",
            facts.notes
        );
        assert_eq!(facts.descriptors[0].interfaces, [Interface::Uefi]);
    }

    #[test]
    fn what_cannot_be_used_is_noted() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        put(at, "c.fd", "");
        let share = "usr/share/qemu/firmware";
        put(at, &format!("{share}/10-a.json"), "{ not json");
        put(at, &format!("{share}/20-b.json"), &descriptor("b", "/c.fd"));
        let igvm = descriptor("c", "/c.fd").replace("\"flash\"", "\"igvm\"");
        put(at, &format!("{share}/30-c.json"), &igvm);
        let facts = FirmwareFacts::read(&roots(at));
        assert!(facts.descriptors.is_empty());
        let notes = facts.notes.join("\n");
        for words in [
            "not a firmware descriptor",
            "there is no /v.fd",
            "mapping `igvm`",
        ] {
            assert!(notes.contains(words), "{notes}");
        }
    }

    #[test]
    fn own_descriptors_step_in_where_their_files_are() {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        put(at, "usr/share/edk2/x64/OVMF_CODE.4m.fd", "");
        put(at, "usr/share/edk2/x64/OVMF_VARS.4m.fd", "");
        let facts = FirmwareFacts::read(&roots(at));
        assert_eq!(facts.descriptors.len(), 1);
        assert_eq!(facts.descriptors[0].origin, "built-in:63-x86_64-arch.json");
        assert!(facts.notes.is_empty(), "{:?}", facts.notes);
    }

    #[test]
    fn every_own_descriptor_is_a_descriptor() {
        let mut seen = 0;
        for file in OWN.files() {
            let parsed = parse(file.contents_utf8().unwrap(), "x".into()).unwrap();
            assert!(parsed.interfaces == [Interface::Uefi] && !parsed.targets.is_empty());
            seen += 1;
        }
        assert!(seen >= 10);
    }

    #[test]
    fn combined_and_memory_images() {
        let flash = r#"{"interface-types": ["uefi"], "mapping": {"device": "flash", "mode": "stateless",
            "executable": {"filename": "/c.qcow2", "format": "qcow2"}}, "targets": []}"#;
        let parsed = parse(flash, "x".into()).unwrap();
        assert!(matches!(
            parsed.mapping,
            Mapping::Flash {
                nvram_template: None,
                mode: FlashMode::Stateless,
                ..
            }
        ));
        let memory = r#"{"interface-types": ["bios"], "targets": [],
            "mapping": {"device": "memory", "filename": "/bios.bin"}}"#;
        let parsed = parse(memory, "x".into()).unwrap();
        assert_eq!(parsed.files().collect::<Vec<_>>(), [Path::new("/bios.bin")]);
        let split = flash.replace("stateless", "split");
        assert!(
            parse(&split, "x".into())
                .unwrap_err()
                .contains("nvram-template")
        );
    }
}
