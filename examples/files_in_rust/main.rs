//! The read model `files` once more, in Rust, in a program of its own that has every command of
//! `highwater`:
//!
//! ```text
//! cargo run --example files_in_rust -- run files_in_rust --until-caught-up
//! ```

mod view;

use std::process::ExitCode;

fn main() -> ExitCode {
    match highwater::cli::App::new().keyed(view::Files) {
        Ok(app) => app.main(),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
