//! The `mvm` command: parse, run, render what went wrong once, end with the right code.

use std::process::ExitCode;

use clap::Parser;
use mvm::cli::{Cli, logging, output};

fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::start(cli.verbose);
    output::set_panic_hook();
    match cli.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.render();
            ExitCode::from(failure.process_status())
        }
    }
}
