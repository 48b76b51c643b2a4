//! One PostgreSQL for all: highwater's private cluster, with the settings of a normal server.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::process::Command;
use tokio::time::sleep;
use tokio_postgres::{Client, NoTls};

use crate::options::Home;
use crate::process::{Background, output};

pub struct Cluster {
    server: Option<Background>,
    /// `host=…&port=…` of its unix socket.
    address: String,
    dir: PathBuf,
}

impl Cluster {
    pub async fn start(home: &Home) -> Result<Cluster> {
        let dir = home.target.join("cluster");
        if dir.exists() {
            fs::remove_dir_all(&dir)?;
        }
        fs::create_dir_all(&dir)?;
        let command = |verb: &str| {
            let mut command = Command::new(&home.highwater);
            command
                .args(["db", verb, "--quiet"])
                .current_dir(&dir)
                .env("HIGHWATER_HOME", &dir)
                .env_remove("DATABASE_URL");
            command
        };
        let server = Background::start(&mut command("start"))?;
        let url = answered(|| command("url")).await?;
        let (_, address) = url
            .trim()
            .split_once('?')
            .context("a URL without a socket")?;
        Ok(Cluster {
            server: Some(server),
            address: address.to_owned(),
            dir,
        })
    }

    /// A form that libpq, sqlx, tokio-postgres and node-postgres read alike.
    pub fn url(&self, database: &str) -> String {
        format!("postgresql:///{database}?user=postgres&{}", self.address)
    }

    /// A new database, empty or as its template is now.
    pub async fn create(&self, database: &str, template: &str) -> Result<String> {
        let admin = connect(&self.url("postgres")).await?;
        // Sessions of the run before may still be on their way out.
        admin
            .batch_execute(&format!("drop database if exists {database} with (force)"))
            .await?;
        admin
            .batch_execute(&format!("create database {database} template {template}"))
            .await?;
        admin.batch_execute("checkpoint").await?;
        Ok(self.url(database))
    }

    pub async fn stop(mut self) -> Result<()> {
        if let Some(server) = self.server.take() {
            server.stop().await?;
        }
        fs::remove_dir_all(&self.dir)?;
        Ok(())
    }
}

/// What the command prints once the server answers.
async fn answered(command: impl Fn() -> Command) -> Result<String> {
    const LIMIT: Duration = Duration::from_secs(30);
    let began = Instant::now();
    loop {
        let mut command = command();
        match output(command.stderr(Stdio::null())).await {
            Ok(printed) => return Ok(printed),
            Err(e) if began.elapsed() > LIMIT => return Err(e.context("the cluster did not start")),
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

pub async fn connect(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// The one number that a query answers with, 0 while its table is not there.
pub async fn number(client: &Client, query: &str) -> Result<i64> {
    match client.query_one(query, &[]).await {
        Ok(row) => Ok(row.get(0)),
        Err(e) if e.code() == Some(&tokio_postgres::error::SqlState::UNDEFINED_TABLE) => Ok(0),
        Err(e) => bail!("{query}: {e}"),
    }
}
