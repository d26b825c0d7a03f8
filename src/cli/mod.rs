//! The command line: one file per command with its help, its arguments and its rendering.
//!
//! The library below never prints; here results go to stdout through [`output`], errors are handed up
//! as [`Failure`] and rendered once, in `main`.

pub mod logging;
pub mod output;

mod again;
mod agent;
mod attach;
mod autostart;
mod background;
mod bind;
mod by_unit;
mod choices;
mod completions;
mod console;
mod control;
mod cp;
mod create;
mod detach;
mod devices;
mod disk;
mod display;
mod doctor;
mod drive;
mod edit;
mod eject;
mod events;
mod exec;
mod failure;
mod fsfreeze;
mod guests;
mod hibernate;
mod import;
mod info;
mod insert;
mod inside;
mod internal;
mod ip;
mod kill;
mod list;
mod log;
mod machine_file;
mod man;
mod memory;
mod monitor;
mod ordered;
mod pause;
mod per_guest;
mod prepare;
mod profile;
mod qmp;
mod reboot;
mod recover;
mod reference;
mod relay;
mod remove;
mod reset;
mod resume;
mod run;
mod save;
mod screenshot;
mod send_key;
mod set_time;
mod show;
mod signals;
mod sleep;
mod start;
mod stdin;
mod stop;
mod suspend;
mod targets;
mod terminal;
mod unbind;
mod under;
mod unit;
mod wait;
mod wakeup;

use clap::{CommandFactory, Parser, Subcommand};

use crate::dirs::Dirs;
pub use failure::Failure;
pub use reference::markdown;

/// Runs QEMU/KVM guests from machine profiles
///
/// A guest is started from a machine file of its own (`mvm create`) or straight from a profile
/// (`mvm profile list`), supervised while it runs, and controlled by name.
#[derive(Debug, Parser)]
#[command(
    name = "mvm",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = EXAMPLES,
    after_long_help = concat!(
        "Examples:\n",
        "  mvm run demo                   boot the demo guest, its console in this terminal\n",
        "  mvm run ubuntu --dry-run       what would be done, and QEMU's command line\n",
        "  mvm start ubuntu --name web    the same in the background, under a name\n",
        "  mvm list                       what runs\n",
        "  mvm stop --all                 ask every guest to shut down\n",
        "\n",
        "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 profile or machine file wrong,\n",
        "4 this host cannot do it, 5 the guest is not running.\n",
        "\n",
        "Environment: MVM_CONFIG_DIR, MVM_STATE_DIR, MVM_RUNTIME_DIR and MVM_CACHE_DIR name the\n",
        "directories, MVM_HOST_DIR the one where guests' devices are kept apart (/run/mvm-host),\n",
        "MVM_SYSFS one that stands for /sys, MVM_LOG what is logged (`debug`), NO_COLOR turns colours\n",
        "off.",
    )
)]
pub struct Cli {
    /// Say more on stderr about what is done; twice and three times for still more
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Start with `mvm doctor`, then `mvm run demo`. `mvm --help` has examples.";

/// The commands, in the order in which the help lists them.
#[derive(Debug, Subcommand)]
enum Command {
    Run(Box<run::RunArgs>),
    Start(Box<start::StartArgs>),
    Stop(stop::StopArgs),
    Kill(kill::KillArgs),
    Reboot(reboot::RebootArgs),
    Reset(reset::ResetArgs),
    Pause(pause::PauseArgs),
    Resume(resume::ResumeArgs),
    Suspend(suspend::SuspendArgs),
    Wakeup(wakeup::WakeupArgs),
    Hibernate(hibernate::HibernateArgs),
    Save(save::SaveArgs),
    #[command(subcommand)]
    Sleep(sleep::SleepCommand),
    List(list::ListArgs),
    Show(show::ShowArgs),
    Wait(wait::WaitArgs),
    Events(events::EventsArgs),
    Console(console::ConsoleArgs),
    Display(display::DisplayArgs),
    Screenshot(screenshot::ScreenshotArgs),
    SendKey(send_key::SendKeyArgs),
    Log(log::LogArgs),
    Memory(memory::MemoryArgs),
    Attach(Box<attach::AttachArgs>),
    Detach(detach::DetachArgs),
    Insert(insert::InsertArgs),
    Eject(eject::EjectArgs),
    Exec(exec::ExecArgs),
    Cp(cp::CpArgs),
    Ip(ip::IpArgs),
    Info(info::InfoArgs),
    Fsfreeze(fsfreeze::FsfreezeArgs),
    SetTime(set_time::SetTimeArgs),
    Agent(agent::AgentArgs),
    Qmp(qmp::QmpArgs),
    #[command(subcommand)]
    Profile(profile::ProfileCommand),
    Create(Box<create::CreateArgs>),
    Import(import::ImportArgs),
    Edit(edit::EditArgs),
    Remove(remove::RemoveArgs),
    #[command(subcommand)]
    Disk(disk::DiskCommand),
    Devices(devices::DevicesArgs),
    Bind(bind::BindArgs),
    Unbind(unbind::UnbindArgs),
    Unit(unit::UnitArgs),
    Autostart(autostart::AutostartArgs),
    Recover(recover::RecoverArgs),
    Doctor(doctor::DoctorArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
    #[command(subcommand, hide = true)]
    Internal(internal::InternalCommand),
}

impl Cli {
    /// Does what the command line asks for.
    ///
    /// # Errors
    /// Everything that went wrong, ready to be rendered.
    pub fn run(self) -> Result<(), Failure> {
        let context = Context {
            dirs: absolute(Dirs::from_env())?,
            verbose: self.verbose,
        };
        let done = match self.command {
            Command::Run(args) => run::run(&args, &context),
            Command::Start(args) => start::run(&args, &context),
            Command::Stop(args) => stop::run(&args, &context),
            Command::Kill(args) => kill::run(&args, &context),
            Command::Reboot(args) => reboot::run(&args, &context),
            Command::Reset(args) => reset::run(&args, &context),
            Command::Pause(args) => pause::run(&args, &context),
            Command::Resume(args) => resume::run(&args, &context),
            Command::Suspend(args) => suspend::run(&args, &context),
            Command::Wakeup(args) => wakeup::run(&args, &context),
            Command::Hibernate(args) => hibernate::run(&args, &context),
            Command::Save(args) => save::run(&args, &context),
            Command::Sleep(command) => sleep::run(&command, &context),
            Command::List(args) => list::run(&args, &context),
            Command::Show(args) => show::run(&args, &context),
            Command::Wait(args) => wait::run(&args, &context),
            Command::Events(args) => events::run(&args, &context),
            Command::Console(args) => console::run(args, &context),
            Command::Display(args) => display::run(&args, &context),
            Command::Screenshot(args) => screenshot::run(&args, &context),
            Command::SendKey(args) => send_key::run(&args, &context),
            Command::Log(args) => log::run(&args, &context),
            Command::Memory(args) => memory::run(&args, &context),
            Command::Attach(args) => attach::run(&args, &context),
            Command::Detach(args) => detach::run(&args, &context),
            Command::Insert(args) => insert::run(&args, &context),
            Command::Eject(args) => eject::run(&args, &context),
            Command::Exec(args) => exec::run(&args, &context),
            Command::Cp(args) => cp::run(&args, &context),
            Command::Ip(args) => ip::run(&args, &context),
            Command::Info(args) => info::run(&args, &context),
            Command::Fsfreeze(args) => fsfreeze::run(&args, &context),
            Command::SetTime(args) => set_time::run(&args, &context),
            Command::Agent(args) => agent::run(&args, &context),
            Command::Qmp(args) => qmp::run(&args, &context),
            Command::Profile(command) => profile::run(&command, &context),
            Command::Create(args) => create::run(&args, &context),
            Command::Import(args) => import::run(&args, &context),
            Command::Edit(args) => edit::run(&args, &context),
            Command::Remove(args) => remove::run(&args, &context),
            Command::Disk(command) => disk::run(command, &context),
            Command::Devices(args) => devices::run(&args, &context),
            Command::Bind(args) => bind::run(&args, &context),
            Command::Unbind(args) => unbind::run(&args, &context),
            Command::Unit(args) => unit::run(&args, &context),
            Command::Autostart(args) => autostart::run(&args, &context),
            Command::Recover(args) => recover::run(&args, &context),
            Command::Doctor(args) => doctor::run(&args, &context),
            Command::Completions(args) => completions::run(&args),
            Command::Man(args) => man::run(&args),
            Command::Internal(command) => internal::run(&command),
        };
        // A console's thread may have been left with the terminal raw.
        terminal::restore();
        done
    }
}

/// What every command gets beside its own arguments.
#[derive(Debug)]
struct Context {
    /// Absolute: a supervisor leaves the folder that it was started in.
    dirs: Dirs,
    verbose: u8,
}

fn absolute(dirs: Dirs) -> Result<Dirs, Failure> {
    let absolute = |path: std::path::PathBuf| {
        std::path::absolute(&path).map_err(|error| {
            Failure::message(
                crate::error::ExitCode::Usage,
                format!(
                    "`{}` cannot be one of mvm's directories: {error}",
                    path.display()
                ),
            )
        })
    };
    Ok(Dirs {
        config: absolute(dirs.config)?,
        system_config: absolute(dirs.system_config)?,
        state: absolute(dirs.state)?,
        runtime: absolute(dirs.runtime)?,
        cache: absolute(dirs.cache)?,
        host: absolute(dirs.host)?,
    })
}

/// The definition of the whole command line, for what is generated from it.
pub fn definition() -> clap::Command {
    Cli::command()
}

/// Runs an asynchronous command on this thread.
fn block_on<T>(future: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| {
            Failure::message(
                crate::error::ExitCode::Failed,
                format!("cannot start the event loop: {error}"),
            )
        })?
        .block_on(future)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_definition_is_sound() {
        super::definition().debug_assert();
    }
}
