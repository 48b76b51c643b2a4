//! Projections: what turns events into a read model.

pub mod file;
pub mod sql_text;
pub mod test_file;

mod toml_text;
