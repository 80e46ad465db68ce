//! The `wgnat` program: parses the command line, sets up logging, runs the command, maps its outcome to an exit code.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use wgnat::cli::Cli;
use wgnat::cmd;

/// Exit code 3 stands for "unknown": nothing observed, or the invocation is wrong.
const UNKNOWN: u8 = 3;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors; all else is a wrong invocation.
            let code = if error.use_stderr() { UNKNOWN } else { 0 };
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    match cmd::run(cli) {
        Ok(code) => ExitCode::from(code),
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "wgnat: {error:#}");
            ExitCode::from(UNKNOWN)
        }
    }
}

/// Whether the reader of our output went away (`wgnat … | head`): it has what it wanted.
fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<io::Error>()
            .is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    })
}
