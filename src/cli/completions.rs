//! `mvm completions`

use clap::Args;

use super::{Failure, definition, output};

/// Print the completion script of a shell
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

pub(super) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut definition(), "mvm", &mut script);
    output::stream(&script)?;
    Ok(())
}
