//! What the commands share: options, configuration, database, projections. Each is looked up at its
//! first use.

mod projections;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::OnceCell;
use tokio_postgres::Client;

use super::options::Options;
use super::signals::Stop;
use super::ui::Ui;
use crate::cluster::{Cluster, DATABASE};
use crate::config::{Config, FILE_NAME};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::connect::{self, Connector, check_server, resolve_database};
use crate::pg::database::Database;
use crate::pg::migrate::{self, Applied};
use crate::projection::DynProjection;
use crate::source::Source;
use crate::source::table::{EventTable, TableSource};

/// How long a command tries to reach its database.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// When it reports that it is still trying.
const CONNECT_NOTE: Duration = Duration::from_secs(1);
/// Sessions for reading events: the runners take turns.
const SOURCE_SESSIONS: usize = 4;

/// What a command works with.
pub(super) struct Context {
    options: Options,
    program: String,
    compiled: Vec<Arc<dyn DynProjection>>,
    ui: Ui,
    stop: Stop,
    loaded: OnceLock<LoadedConfig>,
    reached: OnceCell<ConnectedServer>,
}

struct LoadedConfig {
    /// None: there is no file, and every key has its default.
    file: Option<PathBuf>,
    config: Config,
}

struct ConnectedServer {
    connector: Connector,
    /// The private PostgreSQL, if it is the server.
    cluster: Option<Cluster>,
    /// The first connection to the server, for its first user.
    first: Mutex<Option<Client>>,
}

impl Context {
    pub(super) fn new(
        options: Options,
        program: String,
        compiled: Vec<Arc<dyn DynProjection>>,
        ui: Ui,
    ) -> Context {
        Context {
            options,
            program,
            compiled,
            ui,
            stop: Stop::default(),
            loaded: OnceLock::new(),
            reached: OnceCell::new(),
        }
    }

    /// The name that this program was called by.
    pub(super) fn program(&self) -> &str {
        &self.program
    }

    /// stderr.
    pub(super) fn ui(&self) -> &Ui {
        &self.ui
    }

    /// What signals do.
    pub(super) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Whether the result is wanted as JSON.
    pub(super) fn wants_json(&self) -> bool {
        self.options.json
    }

    /// Writes a line of the result to stdout.
    pub(super) fn line(&self, text: &str) -> Result<()> {
        self.write(format!("{text}\n").as_bytes())
    }

    /// Writes the result as one line of JSON to stdout.
    pub(super) fn json(&self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(value).map_err(|e| {
            Error::new(ErrorKind::Internal, format!("the result is not JSON: {e}")).with_source(e)
        })?;
        self.line(&text)
    }

    /// Writes to stdout.
    pub(super) fn write(&self, bytes: &[u8]) -> Result<()> {
        let mut stdout = std::io::stdout().lock();
        let written = stdout.write_all(bytes).and_then(|()| stdout.flush());
        written.map_err(|e| {
            Error::new(ErrorKind::Io, format!("cannot write to stdout: {e}")).with_source(e)
        })
    }

    /// The configuration.
    pub(super) fn config(&self) -> Result<&Config> {
        Ok(&self.loaded()?.config)
    }

    /// The file of the configuration, if there is one.
    pub(super) fn config_file(&self) -> Result<Option<&Path>> {
        Ok(self.loaded()?.file.as_deref())
    }

    /// The project's directory: that of highwater.toml, else the working directory.
    pub(super) fn project_dir(&self) -> Result<PathBuf> {
        let file = self.config_file()?.and_then(Path::parent);
        match file.filter(|directory| !directory.as_os_str().is_empty()) {
            Some(directory) => Ok(directory.to_owned()),
            None => working_directory(),
        }
    }

    fn loaded(&self) -> Result<&LoadedConfig> {
        if let Some(loaded) = self.loaded.get() {
            return Ok(loaded);
        }
        let found = match &self.options.config {
            Some(file) => Some((file.clone(), Config::load(file)?)),
            None => Config::find(&working_directory()?)?,
        };
        let loaded = match found {
            Some((file, config)) => LoadedConfig {
                file: Some(file),
                config,
            },
            None => LoadedConfig {
                file: None,
                config: Config::default(),
            },
        };
        Ok(self.loaded.get_or_init(|| loaded))
    }

    /// The database that is configured; `None` is the private PostgreSQL.
    pub(super) fn configured(&self) -> Result<Option<Connector>> {
        let flag = self.options.database_url.as_deref();
        if flag.is_some_and(|text| text.trim().is_empty()) {
            return Err(Error::new(ErrorKind::Usage, "--database-url is empty")
                .with_hint("give a URL, or leave it out"));
        }
        let lookup = |name: &str| std::env::var(name).ok();
        resolve_database(flag, &lookup, Some(self.config()?))
    }

    /// Where the configured database is named, and the connection string if it is one text.
    pub(super) fn named_by(&self) -> Result<Option<(&'static str, Option<String>)>> {
        if self.configured()?.is_none() {
            return Ok(None);
        }
        if let Some(flag) = &self.options.database_url {
            return Ok(Some(("--database-url", Some(flag.clone()))));
        }
        let variable = std::env::var("DATABASE_URL").unwrap_or_default();
        if !variable.is_empty() {
            return Ok(Some(("DATABASE_URL", Some(variable))));
        }
        let url = self.config()?.database.url.as_ref();
        Ok(Some(match url {
            Some(url) => (FILE_NAME, Some(url.expose().to_owned())),
            None => ("the PG* variables", None),
        }))
    }

    /// The server, to create databases on it.
    pub(super) async fn server(&self) -> Result<&Connector> {
        self.connector().await
    }

    /// How to reach the database; starts the private PostgreSQL if none is configured.
    async fn connector(&self) -> Result<&Connector> {
        let reached = self.reached.get_or_try_init(|| self.reach()).await?;
        Ok(&reached.connector)
    }

    async fn reach(&self) -> Result<ConnectedServer> {
        let (connector, cluster) = match self.configured()? {
            Some(connector) => (connector, None),
            None => {
                let cluster = Cluster::for_project(&self.project_dir()?).await?;
                self.ui.say(&cluster.notice());
                (connect::parse(&cluster.url(DATABASE))?, Some(cluster))
            }
        };
        let client = self.connect(&connector).await?;
        check_server(&client).await?;
        Ok(ConnectedServer {
            connector,
            cluster,
            first: Mutex::new(Some(client)),
        })
    }

    async fn client(&self) -> Result<Client> {
        let reached = self.reached.get_or_try_init(|| self.reach()).await?;
        let first = reached.first.lock();
        let first = first.unwrap_or_else(PoisonError::into_inner).take();
        match first {
            Some(client) if !client.is_closed() => Ok(client),
            _ => Ok(reached.connector.connect().await?),
        }
    }

    async fn connect(&self, connector: &Connector) -> Result<Client> {
        let connecting = connector.connect_within(CONNECT_LIMIT);
        tokio::pin!(connecting);
        tokio::select! {
            connected = &mut connecting => return Ok(connected?),
            () = tokio::time::sleep(CONNECT_NOTE) => {}
        }
        let limit = CONNECT_LIMIT.as_secs();
        self.ui
            .say(&format!("waiting up to {limit} s for {connector}"));
        Ok(connecting.await?)
    }

    /// Reaches the database and brings its schema up to date. Returns what was missing.
    ///
    /// # Errors
    /// Those of the connection and of [`migrate::migrate`].
    pub(super) async fn migrated(&self) -> Result<Vec<Applied>> {
        let mut client = self.client().await?;
        let applied = migrate::migrate(&mut client).await?;
        for migration in &applied {
            tracing::info!(number = migration.number, name = migration.name, "migrated");
        }
        Ok(applied)
    }

    /// Reaches the database and makes sure that its schema is up to date.
    ///
    /// # Errors
    /// Those of the connection and of [`migrate::verify`].
    pub(super) async fn verified(&self) -> Result<()> {
        let client = self.client().await?;
        migrate::verify(&client).await
    }

    /// The database of the read models, with a pool of its own.
    pub(super) async fn target(&self) -> Result<Database> {
        let settings = &self.config()?.engine;
        let target = Database::new(self.connector().await?.clone(), settings.pool_size as usize)?;
        Ok(target.with_answer_timeout(settings.answer_timeout))
    }

    /// highwater's own event table as the source `default`, with a pool of its own.
    pub(super) async fn source(&self) -> Result<Arc<dyn Source>> {
        let connector = self.connector().await?;
        let direct = self.config()?.engine.listen.then(|| connector.direct());
        let database = Database::new(connector.clone(), SOURCE_SESSIONS)?
            .with_answer_timeout(self.config()?.engine.answer_timeout);
        Ok(Arc::new(TableSource::new(
            "default",
            database,
            direct,
            EventTable::own(),
        )))
    }

    /// Which database it is, for messages.
    pub(super) async fn describe_database(&self) -> Result<String> {
        Ok(self.connector().await?.describe())
    }

    /// Waits until the private PostgreSQL that this process holds has ended; for ever, if there
    /// is none.
    pub(super) async fn private_server_ended(&self) {
        match self
            .reached
            .get()
            .and_then(|reached| reached.cluster.as_ref())
        {
            Some(cluster) => cluster.ended().await,
            None => std::future::pending().await,
        }
    }

    /// Brings down what this process started.
    pub(super) async fn close(self) {
        let cluster = self
            .reached
            .into_inner()
            .and_then(|reached| reached.cluster);
        if let Some(cluster) = cluster
            && let Err(error) = cluster.stop().await
        {
            self.ui.warn(&error.to_string());
        }
    }
}

fn working_directory() -> Result<PathBuf> {
    std::env::current_dir().map_err(|e| {
        Error::new(ErrorKind::Io, format!("there is no working directory: {e}"))
            .with_hint("change into a directory that exists")
            .with_source(e)
    })
}
