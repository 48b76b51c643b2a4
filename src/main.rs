//! The `highwater` command: [`highwater::cli`] without projections of its own in Rust.

fn main() -> std::process::ExitCode {
    highwater::cli::App::new().main()
}
