//! `shifterctl`: shows what shifterd steers, and asks it to change that.
//!
//! Reading arguments (`cli`), asking the daemon (`client`) and writing what came back (`render`)
//! know nothing of each other; `run` joins them. Rendering is pure: a value and a
//! [`render::View`] become text.

mod audit;
mod cli;
mod client;
mod failure;
mod interval;
mod journal;
mod percent;
mod render;
mod run;
mod screen;
mod shifterd;
mod steps;
mod wait;
mod watch;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let arguments = match cli::Arguments::try_parse().and_then(cli::Arguments::checked) {
        Ok(arguments) => arguments,
        Err(error) => return cli::explain(&error),
    };
    let outcome = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime.block_on(run::run(arguments)),
        Err(error) => Err(failure::Failure::Io {
            what: "start",
            error,
        }),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            screen::error(&failure);
            ExitCode::from(failure.exit_code())
        }
    }
}
