//! A server of the benchmark's own, and databases on it.

use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use highwater::cluster::Cluster;
use highwater::internal::engine::Engine;
use highwater::internal::engine::Settings;
use highwater::internal::pg::connect::Connector;
use highwater::internal::pg::database::Database;
use highwater::internal::projection::DynProjection;
use highwater::internal::source::Source;
use highwater::internal::source::table::{EventTable, TableSource};
use highwater::{Error, ErrorKind, Result, Until};
use tokio_postgres::{Client, NoTls};
use tokio_util::sync::CancellationToken;

use super::{Form, Project, failed};

/// What a benchmark measures on.
pub(crate) struct Bench {
    pub(crate) form: Form,
    cluster: Cluster,
    databases: AtomicU32,
}

impl Bench {
    pub(crate) async fn start(form: Form) -> Result<Bench> {
        Bench::start_with(form, &[]).await
    }

    /// The same with settings of the server that only count.
    pub(crate) async fn start_with(form: Form, settings: &[(&str, &str)]) -> Result<Bench> {
        Ok(Bench {
            form,
            cluster: Cluster::temporary_with(settings).await?,
            databases: AtomicU32::new(1),
        })
    }

    pub(crate) fn version(&self) -> String {
        self.cluster.version().1
    }

    pub(crate) fn major(&self) -> u32 {
        self.cluster.version().0
    }

    /// A new database with highwater's schema.
    pub(crate) async fn database(&self) -> Result<Db> {
        let database = self.empty_database().await?;
        let mut client = database.client().await?;
        highwater::internal::pg::migrate::migrate(&mut client).await?;
        Ok(database)
    }

    /// A new database for another build of the binary, with that one's schema.
    pub(crate) async fn database_of(&self, binary: PathBuf) -> Result<Db> {
        let database = Db {
            binary,
            ..self.empty_database().await?
        };
        let project = Project::with(&[])?;
        database.highwater(project.path(), &["init"]).await?;
        Ok(database)
    }

    async fn empty_database(&self) -> Result<Db> {
        let name = format!("bench_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let maintenance = Db::of(&self.cluster, "postgres");
        let client = maintenance.client().await?;
        let sql = format!("create database {name}");
        client.batch_execute(&sql).await.map_err(failed)?;
        Ok(Db::of(&self.cluster, &name))
    }

    /// Gives the room of a database back.
    pub(crate) async fn drop(&self, db: Db) -> Result<()> {
        let client = Db::of(&self.cluster, "postgres").client().await?;
        let sql = format!("drop database {} with (force)", db.name);
        client.batch_execute(&sql).await.map_err(failed)
    }

    pub(crate) async fn stop(self) {
        if let Err(error) = self.cluster.stop().await {
            eprintln!("{error}");
        }
    }
}

/// A database.
#[derive(Clone)]
pub(crate) struct Db {
    name: String,
    pub(crate) url: String,
    /// The highwater that works on it.
    binary: PathBuf,
    /// Where the server's programs are.
    pub(crate) bin_dir: PathBuf,
}

const THIS_BUILD: &str = env!("CARGO_BIN_EXE_highwater");

impl Db {
    fn of(cluster: &Cluster, name: &str) -> Db {
        Db {
            name: name.to_owned(),
            url: cluster.url(name),
            binary: THIS_BUILD.into(),
            bin_dir: cluster.bin_dir().to_owned(),
        }
    }

    /// What another process of the benchmark has made.
    pub(crate) fn made(url: String) -> Db {
        Db {
            name: String::new(),
            url,
            binary: THIS_BUILD.into(),
            bin_dir: PathBuf::new(),
        }
    }

    pub(crate) async fn client(&self) -> Result<Client> {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls)
            .await
            .map_err(failed)?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Runs SQL on a connection of its own and gives its time.
    pub(crate) async fn time(&self, sql: &str) -> Result<Duration> {
        let client = self.client().await?;
        let began = Instant::now();
        client.batch_execute(sql).await.map_err(failed)?;
        Ok(began.elapsed())
    }

    pub(crate) async fn number(&self, sql: &str) -> Result<i64> {
        let row = self.client().await?.query_one(sql, &[]).await;
        Ok(row.map_err(failed)?.get(0))
    }

    pub(crate) fn pooled(&self, settings: &Settings) -> Result<Database> {
        self.sessions(usize::try_from(settings.pool_size).unwrap_or(8))
    }

    pub(crate) fn sessions(&self, most: usize) -> Result<Database> {
        Database::new(Connector::parse(&self.url)?, most)
    }

    /// highwater's own event table as the source `default`.
    pub(crate) fn source(&self, settings: &Settings) -> Result<Arc<dyn Source>> {
        let database = self.pooled(settings)?;
        let direct = Some(database.connector().clone());
        let table = EventTable::own();
        Ok(Arc::new(TableSource::new(
            "default", database, direct, table,
        )))
    }

    /// An engine with these projections.
    pub(crate) fn engine(
        &self,
        settings: &Settings,
        projections: impl IntoIterator<Item = Arc<dyn DynProjection>>,
    ) -> Result<Engine> {
        let pooled = self.pooled(settings)?;
        let engine = Engine::new(pooled, settings.clone()).source(self.source(settings)?);
        Ok(projections.into_iter().fold(engine, Engine::projection))
    }

    /// Takes a projection away, with its read model.
    pub(crate) async fn forget(&self, name: &str) -> Result<()> {
        let sql = format!(
            "drop schema {name} cascade; delete from highwater.projection where name = '{name}'"
        );
        self.time(&sql).await.map(drop)
    }

    /// Runs these projections in this process until they have caught up.
    pub(crate) async fn catch_up(
        &self,
        projections: impl IntoIterator<Item = Arc<dyn DynProjection>>,
    ) -> Result<Duration> {
        let engine = self.engine(&Settings::default(), projections)?;
        let began = Instant::now();
        let report = engine
            .run(Until::CaughtUp, CancellationToken::new())
            .await?;
        let took = began.elapsed();
        match report.outcomes.iter().find_map(|(_, o)| o.error()) {
            Some(error) => Err(Error::new(error.kind(), error.to_string())),
            None => Ok(took),
        }
    }

    /// Runs the binary in `directory` and gives the time from its start to its end.
    pub(crate) async fn highwater(&self, directory: &Path, args: &[&str]) -> Result<Duration> {
        let began = Instant::now();
        let output = self.command(directory, args).output().await;
        let took = began.elapsed();
        succeeded(&output.map_err(failed)?)?;
        Ok(took)
    }

    /// The binary, to be run in `directory` against this database.
    pub(crate) fn command(&self, directory: &Path, args: &[&str]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.binary);
        command
            .args(args)
            .args(["--database-url", &self.url])
            .current_dir(directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }
}

fn succeeded(output: &Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let what = format!("highwater ended with {}: {text}", output.status);
    Err(Error::new(ErrorKind::Internal, what))
}
