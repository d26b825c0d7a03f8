//! `mvm disk import`

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use clap::Args;

use super::{place, qemu_img};
use crate::cli::{Context, Failure, output};
use crate::error::{ExitCode, Report};
use crate::units::{Size, Span};

/// Take a disk image over into the image folder, converted to qcow2
///
/// Reads what qemu-img reads: raw, qcow2, VMDK, VDI, VHDX and others. The source is only read; an image
/// that lies over others becomes one that stands alone.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm disk import ~/Downloads/debian-13-generic-amd64.raw debian.qcow2
  mvm disk import noble-server-cloudimg-amd64.img ubuntu.qcow2 --size 20G")]
pub(in crate::cli) struct ImportArgs {
    /// The image file; a relative path starts in the current folder
    source: PathBuf,
    /// The new image's name; the source's name with `.qcow2` by default
    name: Option<PathBuf>,
    /// Grow the new image to that size
    #[arg(long)]
    size: Option<Size>,
    /// How long the conversion may take
    #[arg(long, default_value = "2h", value_name = "SPAN")]
    timeout: Span,
}

/// Compressed files, by their first bytes, and what unpacks them.
const PACKED: [(&[u8], &str); 5] = [
    (b"\x1f\x8b", "gunzip"),
    (b"\xfd7zXZ\0", "unxz"),
    (b"\x28\xb5\x2f\xfd", "unzstd"),
    (b"BZh", "bunzip2"),
    (b"PK\x03\x04", "unzip"),
];

pub(in crate::cli) async fn run(args: ImportArgs, context: &Context) -> Result<(), Failure> {
    let source = place::absolute(&args.source)?;
    let unreadable = |error: std::io::Error| {
        Failure::message(
            ExitCode::Failed,
            format!("cannot read {}: {error}", source.display()),
        )
    };
    let head = qemu_img::head(&source).map_err(unreadable)?;
    if let Some((_, tool)) = PACKED.iter().find(|(magic, _)| head.starts_with(magic)) {
        return Err(Report::new(
            ExitCode::Failed,
            format!("{} is compressed", source.display()),
        )
        .hint(format!("unpack it first, with `{tool}`"))
        .into());
    }
    let name = args.name.unwrap_or_else(|| {
        Path::new(source.file_name().unwrap_or_default()).with_extension("qcow2")
    });
    let path = place::of_new(&name, context)?;
    let info = qemu_img::info(&source, None).await?;
    if let Some(size) = args.size.filter(|size| size.as_bytes() < info.virtual_size) {
        return Err(Failure::message(
            ExitCode::Failed,
            format!(
                "{size} is less than the {} of {}: mvm shrinks no image",
                Size::bytes(info.virtual_size),
                source.display()
            ),
        ));
    }
    let draft = place::draft(&path, context)?;
    let progress = std::io::stderr().is_terminal();
    let mut words: Vec<OsString> = ["convert", "-f", &info.format, "-O", "qcow2"]
        .map(OsString::from)
        .to_vec();
    words.extend(progress.then(|| OsString::from("-p")));
    words.extend([source.clone().into(), draft.path().into()]);
    qemu_img::run(&words, args.timeout.duration(), progress).await?;
    if let Some(size) = args.size {
        let words: [OsString; 6] = [
            "resize".into(),
            "-q".into(),
            "-f".into(),
            "qcow2".into(),
            draft.path().into(),
            size.as_bytes().to_string().into(),
        ];
        qemu_img::run(&words, qemu_img::QUICK, false).await?;
    }
    place::finish(draft, &path)?;
    output::note(&format!(
        "made {} from {} ({})",
        path.display(),
        source.display(),
        info.format
    ));
    Ok(())
}
