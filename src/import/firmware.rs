//! The firmware: `<os firmware='…'>`, `<loader>`, `<nvram>`, and `<smm>` of `<features>`.
//!
//! What belongs to an image of the domain's own is written with `firmware.file` only: a start refuses it elsewhere.

use super::Told;
use super::draft::Draft;
use super::reader::{El, short};

/// `<loader>`
struct Loader<'a> {
    element: El<'a>,
    path: String,
    flash: bool,
    /// Whether it is qcow2; `None` where it does not say.
    qcow2: Option<bool>,
    secure: Option<bool>,
    stateless: bool,
}

/// Reads it all but for `<smm>`.
pub(super) fn firmware(os: El<'_>, out: &mut Draft) {
    let asked = os.attr("firmware");
    match asked {
        Some("efi") => out.put(os, "firmware", "type", "uefi"),
        Some("bios") => out.put(os, "firmware", "type", "bios"),
        Some(other) => {
            out.told(os, format!("mvm knows no firmware `{}`", short(other)));
        }
        None => {}
    }
    let loader = os.child("loader").map(loader);
    let nvram = os.child("nvram");
    if let Some(loader) = loader.as_ref().filter(|loader| !loader.path.is_empty()) {
        if asked.is_some() {
            // The path is what libvirt found by itself, and mvm finds it, too.
            out.fine.push(Told {
                line: loader.element.line(),
                what: loader.element.shown(),
                why: "the host's firmware descriptors name it to mvm, too".to_owned(),
            });
        } else {
            let word = if loader.flash { "uefi" } else { "bios" };
            out.put(loader.element, "firmware", "type", word);
            out.put(loader.element, "firmware", "file", loader.path.as_str());
        }
    }
    let own = loader.as_ref().filter(|loader| {
        let has_variables = loader.flash && !loader.stateless;
        asked.is_none() && has_variables && !loader.path.is_empty()
    });
    let template = match own {
        Some(own) => self::template(own, nvram, out),
        None => {
            if let Some(nvram) = nvram {
                no_template(nvram, loader.as_ref().filter(|_| asked == Some("efi")), out);
            }
            None
        }
    };
    let variables = asked == Some("efi") || template.is_some();
    secure(os, loader.as_ref(), variables, out);
    if let (Some(template), Some(own)) = (&template, own) {
        let from = nvram.unwrap_or(own.element);
        out.put(from, "firmware", "nvram-template", template.as_str());
    }
    if let Some(nvram) = nvram {
        store(nvram, loader.as_ref(), template.as_deref(), variables, out);
    }
}

fn loader(element: El<'_>) -> Loader<'_> {
    let _read_only_as_every_firmware_of_mvm = element.is("readonly", "yes");
    let flash = element.is("type", "pflash");
    let _rom = !flash && element.is("type", "rom");
    Loader {
        path: element.text(),
        flash,
        qcow2: element.read("format", qcow2),
        secure: element.flag("secure"),
        stateless: element.flag("stateless") == Some(true),
        element,
    }
}

/// The format of an image.
fn qcow2(format: &str) -> Option<bool> {
    match format {
        "raw" => Some(false),
        "qcow2" => Some(true),
        _ => None,
    }
}

/// The template of the variables of a code of the domain's own.
fn template(own: &Loader<'_>, nvram: Option<El<'_>>, out: &mut Draft) -> Option<String> {
    let named = nvram.and_then(|nvram| nvram.attr("template"));
    if let Some(named) = named {
        return Some(named.to_owned());
    }
    if let Some(beside) = beside(&own.path) {
        if nvram.is_none() {
            out.say(
                "firmware",
                "libvirt finds the template of the variables by itself; it lies beside the code.",
            );
        }
        return Some(beside);
    }
    let there = nvram.map(path).filter(|path| !path.is_empty())?;
    out.say(
        "firmware",
        "The domain names no template of the variables: the store that is there stands for it.",
    );
    Some(there)
}

/// A template that no key takes: for the host's firmware the descriptor has both.
fn no_template(nvram: El<'_>, found: Option<&Loader<'_>>, out: &mut Draft) {
    let folder = |path: &str| path.rsplit_once('/').map(|(folder, _)| folder.to_owned());
    let named = nvram.peek("template").and_then(folder);
    // libvirt writes down what it found: the code and, in the same folder, its template.
    if named.is_some() && found.and_then(|loader| folder(&loader.path)) == named {
        out.fine_attr(
            nvram,
            "template",
            "the host's firmware descriptors name it to mvm, too",
        );
    } else {
        out.left_attr(
            nvram,
            "template",
            "mvm takes the template that the host's firmware descriptors name; one of your own goes with \
             `firmware.file`, as `firmware.nvram-template`",
        );
    }
}

/// Secure boot, of which `secure-boot` with its keys is one thing to mvm: without keys it would let everything through.
fn secure(os: El<'_>, loader: Option<&Loader<'_>>, variables: bool, out: &mut Draft) {
    let (mut boot, mut keys) = (None, None);
    if let Some(features) = os.child("firmware") {
        for feature in features.children("feature") {
            match (feature.attr("name"), feature.flag("enabled")) {
                (Some("secure-boot"), Some(on)) if boot.is_none() => boot = Some((feature, on)),
                (Some("enrolled-keys"), Some(on)) if keys.is_none() => keys = Some((feature, on)),
                _ => out.told(
                    feature,
                    "mvm knows no such feature of a firmware, or knows it already",
                ),
            }
        }
    }
    let by_loader = loader.and_then(|loader| Some((loader.element, loader.secure?)));
    match (boot, by_loader) {
        (Some((_, on)), Some((element, other))) if on != other => {
            out.told(
                element,
                "the feature `secure-boot` says otherwise, and counts",
            );
        }
        (None, Some((element, true))) => boot = Some((element, true)),
        _ => {}
    }
    let uefi = out.get("firmware", "type").and_then(toml::Value::as_str) == Some("uefi");
    let wanted = match (boot, keys) {
        (Some((from, false)), keys) => {
            out.put(from, "firmware", "secure-boot", false);
            if let Some((keys, true)) = keys {
                out.told(keys, "without secure boot keys have no effect");
            }
            return;
        }
        (None, Some((from, false))) => {
            let why = "mvm takes no firmware with keys unless `firmware.secure-boot` asks for one";
            return out.fine(from, why);
        }
        (Some((from, true)), _) | (None, Some((from, true))) => from,
        (None, None) => return,
    };
    if !uefi {
        return out.told(wanted, "secure boot is UEFI's, and this guest has a BIOS");
    }
    if !variables {
        let why = "mvm needs `firmware.nvram-template` for it, a store of variables where the keys are enrolled";
        return out.told(wanted, why);
    }
    out.put(wanted, "firmware", "secure-boot", true);
    match keys {
        Some((keys, false)) => out.told(
            keys,
            "mvm's secure boot has keys enrolled, and the guest starts signed software only; a store of the guest's own \
             keeps the keys that it has",
        ),
        Some((keys, true)) if boot.is_some() => {
            out.fine(keys, "mvm's secure boot has the keys enrolled");
        }
        _ => {}
    }
}

/// The variables of the guest's own.
fn store(
    nvram: El<'_>,
    loader: Option<&Loader<'_>>,
    template: Option<&str>,
    variables: bool,
    out: &mut Draft,
) {
    let _kind = nvram.is("type", "file");
    let own = nvram.read("format", qcow2);
    let named = nvram.read("templateFormat", qcow2);
    let path = path(nvram);
    if path.is_empty() {
        return;
    }
    if !variables {
        let why = "a store of variables goes with UEFI in flash, and this guest has none";
        return out.told(nvram, why);
    }
    // libvirt's own default is the format of the code.
    let by_name = template.filter(|template| template.ends_with(".qcow2"));
    let of_template = named
        .or(by_name.map(|_| true))
        .or(loader.and_then(|loader| loader.qcow2))
        .unwrap_or(false);
    let own = own.unwrap_or(of_template);
    let word = |qcow2| if qcow2 { "qcow2" } else { "raw" };
    if own != of_template && template != Some(path.as_str()) {
        return out.told(
            nvram,
            format!(
                "the store is {}, and mvm opens it as its template is, {}: `qemu-img convert` makes one for `firmware.nvram`",
                word(own),
                word(of_template)
            ),
        );
    }
    if own && template.is_none() {
        out.told(
            nvram,
            "the store is qcow2, and mvm opens it as the template is that the host's firmware descriptors name: where \
             that is raw, `qemu-img convert -O raw` makes one",
        );
    }
    out.say(
        "firmware",
        "The store that libvirt's guest has. With a copy of it each of both keeps its own.",
    );
    out.put(nvram, "firmware", "nvram", path);
}

/// Where the store is.
fn path(nvram: El<'_>) -> String {
    let source = nvram.all().find(|part| part.name() == "source");
    let file = source.and_then(|source| source.enter().attr("file"));
    file.map_or_else(|| nvram.text(), str::to_owned)
}

/// The template that lies beside a build of EDK II's: `OVMF_CODE_4M.secboot.fd` has `OVMF_VARS_4M.fd`.
fn beside(code: &str) -> Option<String> {
    let (folder, file) = code.rsplit_once('/')?;
    let vars = file.replacen("CODE", "VARS", 1);
    let vars = vars.replace(".secboot", "").replace(".secure", "");
    (file.contains("CODE")).then(|| format!("{folder}/{vars}"))
}

/// System Management Mode. It is said of an image of one's own; the host's descriptors say it of theirs.
pub(super) fn smm(found: El<'_>, on: bool, out: &mut Draft) {
    let word = |table: &str, key: &str| out.get(table, key).and_then(toml::Value::as_str);
    let uefi = word("firmware", "type") == Some("uefi");
    let q35 = word("machine", "type").is_none_or(|name| name.contains("q35"));
    let own = out.has("firmware", "nvram-template");
    match (own, on) {
        (true, true) if !q35 => out.left(found, "mvm's guests have it on the board q35 only"),
        (true, _) => out.put(found, "firmware", "smm", on),
        (false, _) if uefi => out.fine(
            found,
            "mvm switches it on for a firmware that needs it, by the host's descriptors",
        ),
        (false, true) => out.fine(found, "QEMU gives it to a BIOS of itself, where KVM can"),
        (false, false) => out.left(found, "QEMU gives it to a BIOS of itself, where KVM can"),
    }
}

#[cfg(test)]
mod tests {
    use super::beside;

    #[test]
    fn templates_lie_beside_the_code() {
        for (code, vars) in [
            (
                "/usr/share/OVMF/OVMF_CODE_4M.fd",
                Some("/usr/share/OVMF/OVMF_VARS_4M.fd"),
            ),
            (
                "/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd",
                Some("/usr/share/edk2/ovmf/OVMF_VARS.fd"),
            ),
            (
                "/usr/share/AAVMF/AAVMF_CODE.fd",
                Some("/usr/share/AAVMF/AAVMF_VARS.fd"),
            ),
            ("/opt/mine.fd", None),
        ] {
            assert_eq!(beside(code).as_deref(), vars);
        }
    }
}
