//! Flags of guests that are started together: `--gpu ubuntu=vf --gpu windows11=vf:auto`.
//!
//! What stands before the first `=` of a value is a guest's name where it can be one; a value without a name
//! is for all of them. A device is one guest's: where several are started, its flag has to say whose.

use super::Failure;
use super::choices::ChoiceArgs;
use crate::error::{ExitCode, Report, did_you_mean};
use crate::ids::GuestName;
use crate::profile::Choices;

/// What is chosen for each of the guests that are started together, in their order.
pub(super) fn choices(args: &ChoiceArgs, guests: &[String]) -> Result<Vec<Choices>, Failure> {
    let given = args.flags();
    for (flag, value) in &given {
        check(flag, value, guests)?;
    }
    guests
        .iter()
        .map(|guest| {
            args.of(&|flag, value| for_guest(flag, value, guest))
                .choices()
        })
        .collect()
}

/// A flag and whether it may be that of several guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Flag {
    /// Its name, without the dashes.
    pub(super) name: &'static str,
    /// What it names is one guest's.
    pub(super) owned: bool,
    /// It is on or off: `--full-screen`, `--full-screen=GUEST`.
    pub(super) switch: bool,
}

/// The guest that a value is for, and the rest.
fn split<'a>(flag: &Flag, value: &'a str) -> (Option<&'a str>, &'a str) {
    match value.split_once('=') {
        // `GUEST=KEY=VALUE`; a value may look so too, as in `boot.append=systemd.unit=rescue`: keys have a dot.
        Some((guest, rest)) if flag.name == "set" => match rest.split_once('=') {
            Some((key, _))
                if !guest.contains('.') && guest.parse::<GuestName>().is_ok() && is_key(key) =>
            {
                (Some(guest), rest)
            }
            _ => (None, value),
        },
        None if flag.switch && !matches!(value, "on" | "off") => (Some(value), "on"),
        Some((guest, rest)) if guest.parse::<GuestName>().is_ok() => (Some(guest), rest),
        _ => (None, value),
    }
}

/// Whether it looks like a key of a profile, as in `memory.size`.
fn is_key(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    let part = |part: &str| !part.is_empty() && part.chars().all(fits);
    text.contains('.') && text.split('.').all(part)
}

fn for_guest(flag: &Flag, value: &str, guest: &str) -> Option<String> {
    match split(flag, value) {
        (None, value) => Some(value.to_owned()),
        (Some(named), rest) => is_called(guest, named).then(|| rest.to_owned()),
    }
}

/// Whether a guest that is started as `what` is meant by `name`: a file given by its path has the name that it
/// has without folder and ending.
fn is_called(what: &str, name: &str) -> bool {
    let file = what.rsplit_once('/').map(|(_, file)| file);
    let stem = file.map(|file| file.strip_suffix(".toml").unwrap_or(file));
    stem.unwrap_or(what) == name
}

fn check(flag: &Flag, value: &str, guests: &[String]) -> Result<(), Failure> {
    let wrong =
        |text: String| Report::new(ExitCode::Usage, format!("--{} {value}: {text}", flag.name));
    match split(flag, value) {
        (Some(named), _) if guests.iter().any(|guest| is_called(guest, named)) => Ok(()),
        (Some(named), _) => {
            let mut report = wrong(format!("no guest `{named}` is started here"));
            if let Some(near) = did_you_mean(named, guests.iter().map(String::as_str)) {
                report = report.hint(format!("did you mean `{near}`?"));
            }
            if flag.name == "device" {
                report = report.hint(format!("a file of that name: `--device ./{value}`"));
            }
            Err(if guests.is_empty() {
                report.hint("none is: no guest has a machine file (`mvm create NAME --profile PROFILE`), or all run")
            } else {
                report.hint(format!("these are: {}", guests.join(", ")))
            }
            .into())
        }
        (None, value) if flag.owned && guests.len() > 1 && is_one(flag, value) => {
            let first = guests.first().map_or("GUEST", String::as_str);
            let example = format!("--{} {first}={value}", flag.name);
            Err(
                wrong("several guests are started, and only one can have it".to_owned())
                    .hint(format!("say which: `{example}`"))
                    .into(),
            )
        }
        (None, _) => Ok(()),
    }
}

/// Whether a value names one thing. Each guest can have a virtual GPU, a function of its own, a TPM in software.
fn is_one(flag: &Flag, value: &str) -> bool {
    match flag.name {
        "gpu" => {}
        // The host has one.
        "tpm" => return value.starts_with("passthrough"),
        _ => return true,
    }
    let kind = value.split('@').next().unwrap_or(value);
    !matches!(
        kind,
        "none" | "virtio" | "vf" | "sriov" | "vf:auto" | "sriov:auto"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(words: &[&str], guests: &[&str]) -> Result<Vec<Choices>, String> {
        use clap::Parser;
        #[derive(Debug, Parser)]
        struct Line {
            #[command(flatten)]
            choices: ChoiceArgs,
        }
        let line = Line::try_parse_from(std::iter::once(&"x").chain(words));
        let line = line.map_err(|error| error.to_string())?;
        let guests: Vec<String> = guests.iter().map(|guest| (*guest).to_owned()).collect();
        choices(&line.choices, &guests).map_err(|failure| failure.first().to_string())
    }

    #[test]
    fn each_guest_gets_its_own() {
        let words = [
            "--gpu=ubuntu=vf",
            "--gpu=windows11=vf:auto",
            "--usb=ubuntu=keyboard",
            "--usb=ubuntu=ethernet",
            "--pci=windows11=network controller:2",
            "--display=vnc",
            "--memory=windows11=8G",
            "--set=windows11=cpu.count=3",
            "--set=boot.append=mvm.swap=b.c",
        ];
        let all = given(&words, &["ubuntu", "/etc/x/windows11.toml"]);
        let all = all.expect("they are fine");
        let [ubuntu, windows] = all.as_slice() else {
            panic!("two guests");
        };
        assert_eq!(ubuntu.gpu.as_deref(), Some("vf"));
        assert_eq!(ubuntu.usb, ["keyboard", "ethernet"]);
        assert!(ubuntu.pci.is_empty());
        assert_eq!(ubuntu.set, ["boot.append=mvm.swap=b.c"]);
        assert_eq!(windows.gpu.as_deref(), Some("vf:auto"));
        assert_eq!(windows.pci, ["network controller:2"]);
        assert_eq!(
            windows.set,
            [
                "memory.size=\"8G\"",
                "cpu.count=3",
                "boot.append=mvm.swap=b.c"
            ]
        );
        for one in [ubuntu, windows] {
            assert_eq!(one.display.as_deref(), Some("vnc"));
        }
    }

    #[test]
    fn switches_and_lists_are_one_guests_too() {
        let words = [
            "--display=a=local",
            "--output=a=2",
            "--connectors=a=HDMI-1,DP-1",
            "--full-screen=a",
            "--show-fps",
            "--tpm=b=passthrough:crb",
            "--display=b=local",
        ];
        let all = given(&words, &["a", "b"]).expect("they are fine");
        let sets: Vec<String> = all.iter().map(|one| one.set.join(" ")).collect();
        assert_eq!(
            sets,
            [
                "display.outputs=2 display.local.connectors=[\"HDMI-1\", \"DP-1\"] \
                 display.local.full-screen=true display.local.show-fps=true",
                "display.local.show-fps=true tpm={ passthrough = {}, model = \"crb\" }",
            ]
        );
        let told = |words: &[&str]| given(words, &["a", "b"]).expect_err("it is wrong");
        assert!(told(&["--full-screen=c"]).contains("no guest `c`"));
        assert!(told(&["--tpm=passthrough"]).contains("only one can have it"));
        assert!(told(&["--tpm=soft"]).contains("`emulator`"));
        assert!(told(&["--full-screen=a=yes"]).contains("`on`, `off`"));
        assert!(given(&["--tpm=emulator"], &["a", "b"]).is_ok());
    }

    #[test]
    fn a_device_of_nobody_in_particular_is_refused() {
        let told = |words: &[&str]| given(words, &["ubuntu", "windows"]).expect_err("it is wrong");
        assert!(told(&["--gpu=ubunto=vf"]).contains("no guest `ubunto` is started here"));
        for word in ["--pci=wi-fi", "--usb=keyboard", "--gpu=vf:1", "--gpu=gvtd"] {
            let said = told(&[word]);
            assert!(said.contains("only one can have it"), "{word}: {said}");
        }
        assert!(given(&["--gpu=sriov"], &["ubuntu", "windows"]).is_ok());
        assert!(given(&["--pci=wi-fi"], &["ubuntu"]).is_ok());
        assert!(told(&["--gpu=ubuntu=vf", "--gpu=ubuntu=none"]).contains("twice"));
    }

    #[test]
    fn what_cannot_be_a_name_is_none() {
        let all = given(&["--usb=serial:a=b", "--device=./a=b.toml"], &["ubuntu"]);
        let all = all.expect("they are fine");
        assert_eq!(all[0].usb, ["serial:a=b"]);
        assert!(all[0].device[0].ends_with("a=b.toml"));
    }
}
