//! A private PostgreSQL from the server programs on this machine: for development, demos and tests.

pub use highwater_cluster::{Binaries, Cluster, DATABASE, Error, ErrorKind, Result};

impl From<Error> for crate::Error {
    fn from(error: Error) -> crate::Error {
        let mut ours = crate::Error::new(kind_of(error.kind()), error.message());
        if let Some(location) = error.location() {
            ours = ours.with_location(location);
        }
        if let Some(hint) = error.hint() {
            ours = ours.with_hint(hint);
        }
        match error.into_source() {
            Some(source) => ours.with_source(source),
            None => ours,
        }
    }
}

fn kind_of(kind: ErrorKind) -> crate::ErrorKind {
    match kind {
        ErrorKind::Setup => crate::ErrorKind::Config,
        ErrorKind::Failed => crate::ErrorKind::Database,
        ErrorKind::Lost => crate::ErrorKind::ConnectionLost,
        ErrorKind::TimedOut => crate::ErrorKind::TimedOut,
        ErrorKind::Io => crate::ErrorKind::Io,
        _ => crate::ErrorKind::Internal,
    }
}
