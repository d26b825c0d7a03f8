//! `mvm doctor`

use clap::Args;

use super::output::{self, Format, FormatArg, Table};
use super::{Context, Failure};
use crate::error::ExitCode;
use crate::host::doctor::{self, Level, Surroundings};
use crate::host::{HostFacts, Needs, Roots};
use crate::ids::Arch;
use crate::settings::Settings;

/// Say what this host can do, and what to change where it cannot
///
/// Exit code 4 where a guest could not run.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm doctor
  mvm doctor --format json | jq '.[] | select(.level != \"ok\")'")]
pub(super) struct DoctorArgs {
    /// Look at everything anew, and believe no result that was kept
    #[arg(long)]
    fresh: bool,
    #[command(flatten)]
    format: FormatArg,
}

pub(super) fn run(args: &DoctorArgs, context: &Context) -> Result<(), Failure> {
    let settings = Settings::load(&context.dirs)?;
    let roots = Roots::host(Some(context.dirs.cache.clone()));
    let facts = HostFacts::read(
        &roots,
        &Needs {
            kvm: true,
            qemu: Arch::ALL.to_vec(),
            qemu_binary: settings.qemu,
            firmware: true,
            devices: true,
            fresh: args.fresh,
            user: settings
                .security
                .user
                .filter(|_| nix::unistd::Uid::effective().is_root()),
            ..Needs::default()
        },
    );
    let findings = doctor::findings(&facts, &Surroundings::read(&roots, &context.dirs));
    match args.format.format {
        Format::Json => output::print_json(&findings)?,
        Format::Table => {
            let mut table = Table::bare();
            for finding in &findings {
                table.row([level(finding.level), &finding.id, &finding.text]);
                if let Some(fix) = &finding.fix {
                    table.row(["", "", &format!("fix: {fix}")]);
                }
            }
            table.print()?;
        }
    }
    if doctor::could_run_guest(&findings) {
        Ok(())
    } else {
        Err(Failure::message(
            ExitCode::Host,
            "a guest could not run on this host",
        ))
    }
}

const fn level(level: Level) -> &'static str {
    match level {
        Level::Ok => "ok",
        Level::Info => "info",
        Level::Warn => "warn",
        Level::Error => "error",
    }
}
