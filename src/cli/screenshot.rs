//! `mvm screenshot`

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use mvm_qmp::Qmp;
use serde_json::{Value, json};

use super::{Context, Failure, block_on, guests, monitor, output, show};
use crate::error::{ExitCode, Report};

/// How long QEMU may take to write the picture.
const WITHIN: Duration = Duration::from_secs(30);
const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";
const PPM: &[u8] = b"P6";

/// Save what a guest's screen shows, as a PNG or PPM file
///
/// It needs no display, but a video device: `[video.NAME]`. PNG needs QEMU 7.1 or later.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm screenshot web web.png
  mvm screenshot web second.png --video second
  mvm screenshot web right.png --output 2
  mvm screenshot web old.ppm")]
pub(super) struct ScreenshotArgs {
    /// The guest
    name: String,
    /// The file, which ends in `.png` or `.ppm`; one that is there is replaced
    file: PathBuf,
    /// The `[video.NAME]`; by default the one that the guest boots with
    #[arg(long, value_name = "NAME")]
    video: Option<String>,
    /// Which of its outputs, 1 first
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=16))]
    output: Option<u32>,
}

/// The formats, by the ending of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Picture {
    Png,
    Ppm,
}

fn picture(file: &Path) -> Result<Picture, Report> {
    let ending = file
        .extension()
        .map(|ending| ending.to_string_lossy().to_lowercase());
    match ending.as_deref() {
        Some("png") => Ok(Picture::Png),
        Some("ppm") => Ok(Picture::Ppm),
        _ => Err(Report::new(
            ExitCode::Usage,
            format!("`{}` does not end in .png or .ppm", file.display()),
        )),
    }
}

pub(super) fn run(args: &ScreenshotArgs, context: &Context) -> Result<(), Failure> {
    let picture = picture(&args.file)?;
    let broken = |what: &str, error: std::io::Error| {
        Report::new(
            ExitCode::Failed,
            format!("cannot {what} {}: {error}", args.file.display()),
        )
    };
    // Written beside it and then moved: a picture that was there stays until there is another.
    let dir = match args.file.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    let new = tempfile::Builder::new()
        .prefix(".mvm-screenshot")
        .tempfile_in(dir)
        .map_err(|error| broken("write beside", error))?;
    let video = match (&args.video, args.output) {
        // QEMU knows the outputs of a device that is named.
        (None, Some(_)) => {
            let seen = guests::find_supervised(context, &args.name)?;
            let plan = show::plan(&seen);
            plan.and_then(|plan| Some(plan.machine.desktop.video.first()?.id.to_string()))
        }
        (video, _) => video.clone(),
    };
    block_on(async {
        let (qmp, _) = monitor::connect(&args.name, context, WITHIN).await?;
        // QEMU may be another user, who may not write there: it gets the file open, and wants it as it
        // opens such files itself, for writing only.
        let file = File::options()
            .write(true)
            .open(new.path())
            .map_err(|error| broken("open", error))?;
        let set = qmp
            .call_with_fds("add-fd", None, vec![file.into()])
            .await
            .map_err(monitor::failure)?;
        let taken = take(&qmp, args, video.as_deref(), picture, &set["fdset-id"]).await;
        let id = json!({ "fdset-id": set["fdset-id"] });
        // It is gone with the connection otherwise.
        let _ = qmp.call("remove-fd", Some(id)).await;
        taken
    })?;
    let mut head = [0; 8];
    let read = File::open(new.path()).and_then(|mut file| file.read(&mut head));
    let read = read.map_err(|error| broken("read", error))?;
    let magic = match picture {
        Picture::Png => PNG,
        Picture::Ppm => PPM,
    };
    if !head[..read].starts_with(magic) {
        return Err(Failure::message(
            ExitCode::Failed,
            format!("QEMU wrote no picture of {}", args.name),
        ));
    }
    new.persist(&args.file)
        .map_err(|error| broken("write", error.error))?;
    let size = fs::metadata(&args.file).map_or(0, |meta| meta.len());
    output::progress(&format!(
        "{}: {}",
        args.file.display(),
        output::human_bytes(size)
    ));
    Ok(())
}

async fn take(
    qmp: &Qmp,
    args: &ScreenshotArgs,
    video: Option<&str>,
    picture: Picture,
    set: &Value,
) -> Result<(), Failure> {
    let mut request = json!({ "filename": format!("/dev/fdset/{set}") });
    if picture == Picture::Png {
        let version = qmp.call("query-version", None).await.unwrap_or_default();
        let number = |part: &str| version["qemu"][part].as_u64().unwrap_or_default();
        if (number("major"), number("minor")) < (7, 1) {
            return Err(Report::new(
                ExitCode::Host,
                "this guest's QEMU is older than 7.1 and writes no PNG",
            )
            .hint("name a file that ends in .ppm")
            .into());
        }
        request["format"] = "png".into();
    }
    if let Some(video) = video {
        request["device"] = video.into();
    }
    if let Some(output) = args.output {
        request["head"] = (output - 1).into();
    }
    match qmp.call("screendump", Some(request)).await {
        Ok(_) => Ok(()),
        Err(error) => {
            let report = monitor::report(&error);
            let report = if report.chain[0].contains("no console") {
                report.hint("the guest has no video device: write `[video.NAME]` into its profile")
            } else {
                report
            };
            Err(report.into())
        }
    }
}
