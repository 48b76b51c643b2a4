//! The front door: everything that a program needs to run projections and to append, from one value.

mod handle;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::engine::{Engine, Report, Settings, Until};
use crate::error::{Error, Result};
use crate::event_store::{self, EventStore};
use crate::pg::connect::{self, Connector, check_server};
use crate::pg::database::Database;
use crate::pg::migrate;
use crate::projection::file::{ProjectionFile, load_directory};
use crate::projection::{
    Definition, DynProjection, Keyed, KeyedView, Projection, RustProjection, SqlProjection,
};
use crate::source::Source;
use crate::source::table::{EventTable, TableSource};

pub use handle::Handle;

/// How long a program tries to reach its database at the start.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Sessions for reading the events of one source: the runners take turns.
const SOURCE_SESSIONS: usize = 4;

/// A database with an event log and read models, and the projections that this program runs in it.
///
/// ```no_run
/// # async fn example() -> highwater::Result<()> {
/// use highwater::{Highwater, Until};
///
/// let highwater = Highwater::connect("postgresql://app@localhost/shop").await?;
/// let report = highwater.sql_file("projections/orders.sql")?.run(Until::CaughtUp).await?;
/// # Ok(())
/// # }
/// ```
pub struct Highwater {
    connector: Connector,
    target: Database,
    settings: Settings,
    sources: Vec<Arc<dyn Source>>,
    store: EventStore,
    engine: Engine,
    definitions: Vec<Definition>,
    /// The first faulty projection; [`Highwater::run`] returns it.
    fault: Option<Error>,
    stop: CancellationToken,
}

impl Highwater {
    /// Connects to a database and brings highwater's schema in it up to date.
    ///
    /// `url` is a URL or `key=value` text as libpq reads it; the PG* variables fill what it leaves out.
    ///
    /// # Errors
    /// If the database cannot be reached within 10 s, the server is too old, or the role may not do what is
    /// needed.
    pub async fn connect(url: &str) -> Result<Highwater> {
        Highwater::connect_with(url, Settings::default()).await
    }

    /// Connects with settings of your own.
    ///
    /// # Errors
    /// As [`Highwater::connect`], and if a setting is out of its limits.
    pub async fn connect_with(url: &str, settings: Settings) -> Result<Highwater> {
        settings.validate()?;
        let connector = connect::parse(url)?;
        let mut client = connector.connect_within(CONNECT_LIMIT).await?;
        check_server(&client).await?;
        migrate::migrate(&mut client).await?;
        let sessions = settings.pool_size as usize;
        let target = pool(&connector, sessions, &settings)?;
        let highwater = Highwater {
            store: event_store::in_database(pool(&connector, sessions, &settings)?),
            engine: Engine::new(target.clone(), settings.clone()),
            sources: Vec::new(),
            definitions: Vec::new(),
            fault: None,
            stop: CancellationToken::new(),
            connector,
            target,
            settings,
        };
        let events = event_table("default", &highwater.connector, &highwater.settings)?;
        Ok(highwater.source(events))
    }

    /// Adds a source of events, for the projections that name it ([`Projection::source`]). One named
    /// `default` takes the place of this database's own event table. A projection in SQL can only
    /// read a source whose events are in this database.
    ///
    /// ```no_run
    /// use highwater::source::Source;
    /// use highwater::{Highwater, KeyedView, Until};
    ///
    /// # async fn example(orders: impl Source, view: impl KeyedView) -> highwater::Result<()> {
    /// let highwater = Highwater::connect("postgresql://app@localhost/shop").await?;
    /// let report = highwater.source(orders).keyed(view).run(Until::CaughtUp).await?;
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn source(mut self, source: impl Source) -> Highwater {
        let source: Arc<dyn Source> = Arc::new(source);
        self.sources.retain(|other| other.name() != source.name());
        self.sources.push(source.clone());
        Highwater {
            engine: self.engine.source(source),
            ..self
        }
    }

    /// Adds highwater's event table in another database as the source `name`, for projections in Rust.
    ///
    /// # Errors
    /// If the URL cannot be understood.
    pub fn events_of(self, name: &str, url: &str) -> Result<Highwater> {
        let events = event_table(name, &connect::parse(url)?, &self.settings)?;
        Ok(self.source(events.elsewhere()))
    }

    /// Adds a projection in SQL, from its file.
    ///
    /// # Errors
    /// If the file cannot be read or is not a projection; the error names the line.
    pub fn sql_file(self, path: impl AsRef<Path>) -> Result<Highwater> {
        Ok(self.with_file(ProjectionFile::load(path.as_ref())?))
    }

    /// Adds a projection in SQL, from a text that was compiled in, for example by `include_str!`.
    ///
    /// # Errors
    /// As [`Highwater::sql_file`].
    pub fn sql(self, name: &str, text: &str) -> Result<Highwater> {
        let path = format!("{name}.sql");
        let file = ProjectionFile::parse(path.as_ref(), text)?;
        Ok(self.with_file(file))
    }

    /// Adds every `NAME.sql` of a directory.
    ///
    /// # Errors
    /// The first fault of a file.
    pub fn sql_directory(self, directory: impl AsRef<Path>) -> Result<Highwater> {
        match load_directory(directory.as_ref()) {
            Ok(files) => Ok(files.into_iter().fold(self, Highwater::with_file)),
            Err(faults) => faults.into_iter().next().map_or(Ok(self), Err),
        }
    }

    /// Adds a keyed view. A fault in it is an error of [`Highwater::run`].
    #[must_use]
    pub fn keyed(self, view: impl KeyedView) -> Highwater {
        self.with_built(Keyed::new(view))
    }

    /// Adds a projection in Rust. A fault in it is an error of [`Highwater::run`].
    #[must_use]
    pub fn projection(self, projection: impl Projection) -> Highwater {
        self.with_built(RustProjection::new(projection))
    }

    fn with_file(self, file: ProjectionFile) -> Highwater {
        self.with_built(Ok(SqlProjection::new(file)))
    }

    fn with_built<P: DynProjection>(mut self, projection: Result<P>) -> Highwater {
        let projection = match projection {
            Ok(projection) => Arc::new(projection),
            Err(fault) => {
                self.fault.get_or_insert(fault);
                return self;
            }
        };
        self.definitions.push(projection.definition().clone());
        Highwater {
            engine: self.engine.projection(projection),
            ..self
        }
    }

    /// The event table of this database, to append to. Clones share a pool of their own.
    pub fn event_store(&self) -> EventStore {
        self.store.clone()
    }

    /// A handle that stops, pauses and watches the projections that were added so far.
    pub fn handle(&self) -> Handle {
        Handle::new(handle::Parts {
            target: self.target.clone(),
            sources: self.sources.clone(),
            definitions: self.definitions.clone(),
            monitor: self.engine.monitor(),
            stop: self.stop.clone(),
        })
    }

    /// Runs the projections until [`Handle::stop`], until `until` is reached, or until all have stopped.
    /// Dropping the future is like a crash, and as safe.
    ///
    /// # Errors
    /// If nothing could be started. An error that stops one projection is in the report.
    pub async fn run(self, until: Until) -> Result<Report> {
        match self.fault {
            Some(fault) => Err(fault),
            None => self.engine.run(until, self.stop).await,
        }
    }
}

fn pool(connector: &Connector, sessions: usize, settings: &Settings) -> Result<Database> {
    let database = Database::new(connector.clone(), sessions)?;
    Ok(database.with_answer_timeout(settings.answer_timeout))
}

fn event_table(name: &str, connector: &Connector, settings: &Settings) -> Result<TableSource> {
    let events = pool(connector, SOURCE_SESSIONS, settings)?;
    let direct = settings.listen.then(|| connector.direct());
    Ok(TableSource::new(name, events, direct, EventTable::own()))
}

impl fmt::Debug for Highwater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Highwater")
            .field("database", &self.connector)
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}
