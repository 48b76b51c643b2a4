//! A read model that takes text apart in Rust, in a program of its own that has every command of
//! `highwater`:
//!
//! ```text
//! cargo run --example words_in_rust -- append data/tokio-history.ndjson.gz
//! cargo run --example words_in_rust -- run words --until-caught-up
//! cargo test --example words_in_rust
//! ```

#[cfg(test)]
mod tests;
mod words;

use std::process::ExitCode;

fn main() -> ExitCode {
    match highwater::cli::App::new().projection(words::Words) {
        Ok(app) => app.main(),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
