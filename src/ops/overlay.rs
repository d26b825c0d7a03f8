//! Throw-away qcow2 overlays.

use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

use super::{OpsError, dirs, process};
use crate::profile::schema::DiskFormat;

/// Making an overlay writes a few hundred kilobytes; a minute means a file system that hangs.
const DEADLINE: Duration = Duration::from_secs(60);

/// Makes an overlay anew: what is there from an earlier start is thrown away, as it was meant to be.
pub(crate) fn create(
    qemu: Option<&Path>,
    path: &Path,
    backing: &Path,
    backing_format: DiskFormat,
) -> Result<(), OpsError> {
    let program = process::find("qemu-img", qemu).ok_or(OpsError::NoProgram {
        program: "qemu-img".to_owned(),
    })?;
    dirs::remove_file(path)?;
    let args: [&OsStr; 10] = [
        "create".as_ref(),
        "-q".as_ref(),
        "-f".as_ref(),
        "qcow2".as_ref(),
        "-F".as_ref(),
        backing_format.as_str().as_ref(),
        "-b".as_ref(),
        backing.as_os_str(),
        "--".as_ref(),
        path.as_os_str(),
    ];
    process::run(&program, &args, DEADLINE)?;
    if path.is_file() {
        return Ok(());
    }
    Err(OpsError::NoEffect {
        what: format!("the making of {}", path.display()),
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_overlay_shares_its_base_whatever_it_is_called() {
        let top = tempfile::tempdir().unwrap();
        for name in ["plain", "-dash", "a,b", "a b", "quo\"te", "new\nline", "ü"] {
            let base = top.path().join(name);
            std::fs::write(&base, vec![0; 1 << 20]).unwrap();
            let path = top.path().join("o.overlay.qcow2");
            create(None, &path, &base, DiskFormat::Raw).unwrap();
            let head = std::fs::read(&path).unwrap();
            assert_eq!(&head[..4], b"QFI\xfb", "{name:?}");
            let text = String::from_utf8_lossy(&head).into_owned();
            assert!(text.contains(base.to_str().unwrap()), "{name:?}");
        }
        let error = create(
            None,
            &top.path().join("o"),
            &top.path().join("missing"),
            DiskFormat::Raw,
        )
        .unwrap_err();
        assert!(error.to_string().contains("missing"), "{error}");
        assert!(!top.path().join("o").exists());
    }
}
