//! `mvm completions`

use clap::Args;

use super::{Failure, definition, output};

/// Print the completion script of a shell
///
/// In bash the names of guests and profiles are completed as well.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  mvm completions bash > ~/.local/share/bash-completion/completions/mvm
  mvm completions zsh > ~/.zfunc/_mvm
  mvm completions fish > ~/.config/fish/completions/mvm.fish")]
pub(super) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

/// What clap's script for bash cannot know: the names that there are just now.
const BASH_NAMES: &str = include_str!("completions/names.bash");

pub(super) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    let mut command = visible(&definition()).version(env!("CARGO_PKG_VERSION"));
    clap_complete::generate(args.shell, &mut command, "mvm", &mut script);
    if args.shell == clap_complete::Shell::Bash {
        script.extend_from_slice(BASH_NAMES.as_bytes());
    }
    output::stream(&script)?;
    Ok(())
}

/// The command without what is hidden: the generators offer that too.
fn visible(command: &clap::Command) -> clap::Command {
    let args = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let subs = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    let about = command.get_about().cloned().unwrap_or_default();
    // Names have to live for ever; this process prints them and ends.
    let name: &'static str = Box::leak(command.get_name().into());
    clap::Command::new(name)
        .about(about)
        .args(args.cloned())
        .subcommands(subs.map(visible))
}
