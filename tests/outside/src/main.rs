//! Runs three read models in the database of its first argument, one of them from the file of its second, and
//! prints what it sees.

#[cfg(test)]
mod own_log;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use highwater::{
    Batch, BoxError, Error, EventStore, ExpectedVersion, Handle, Highwater, KeyedView, NewEvent,
    OnUnknown, Outcome, Projection, RecordedEvent, RunnerState, Settings, Tx, Until, Waited,
};
use serde::{Deserialize, Serialize};
use serde_json::json;

const SOON: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
enum Account {
    Opened { owner: String },
    Deposited { cents: i64 },
}

#[derive(Serialize, Deserialize)]
struct Balance {
    account: String,
    owner: String,
    cents: i64,
}

/// An error of our own.
#[derive(Debug)]
enum Refused {
    NotOpened,
    TooRich,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refused::NotOpened => "the account was not opened",
            Refused::TooRich => "no account holds that much",
        })
    }
}

impl std::error::Error for Refused {}

fn deposit(balance: Option<Balance>, cents: i64) -> Result<Balance, Refused> {
    let balance = balance.ok_or(Refused::NotOpened)?;
    let cents = balance.cents.checked_add(cents).ok_or(Refused::TooRich)?;
    Ok(Balance { cents, ..balance })
}

struct Balances;

impl KeyedView for Balances {
    type Event = Account;
    type Key = String;
    type Row = Balance;
    const ON_UNKNOWN: OnUnknown = OnUnknown::Ignore;

    fn name(&self) -> &str {
        "balances"
    }

    fn up(&self) -> &str {
        "create table balance (account text primary key, owner text not null, cents bigint not null)"
    }

    fn table(&self) -> &str {
        "balance"
    }

    fn key_columns(&self) -> &[&str] {
        &["account"]
    }

    fn key(&self, _: &Account, recorded: &RecordedEvent) -> Result<Option<String>, BoxError> {
        Ok(Some(recorded.stream.clone()))
    }

    fn fold(
        &self,
        balance: Option<Balance>,
        event: Account,
        recorded: &RecordedEvent,
    ) -> Result<Option<Balance>, BoxError> {
        let account = recorded.stream.clone();
        Ok(Some(match event {
            Account::Opened { owner } => Balance {
                account,
                owner,
                cents: 0,
            },
            Account::Deposited { cents } => deposit(balance, cents)?,
        }))
    }
}

/// Writes down each stream and the length of its last event's data.
struct Lengths;

impl Projection for Lengths {
    fn name(&self) -> &str {
        "lengths"
    }

    fn up(&self) -> &str {
        "create table length (stream text primary key, bytes int not null)"
    }

    async fn apply(&self, batch: &Batch, tx: &Tx<'_>) -> Result<(), BoxError> {
        for event in &batch.events {
            let bytes = i32::try_from(event.data.get().len())?;
            let sql = "insert into length values ($1, $2)
                       on conflict (stream) do update set bytes = excluded.bytes";
            tx.execute(sql, &[&event.stream, &bytes]).await?;
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("give a database")?;
    let file = arguments.next().ok_or("give a file of SQL")?;
    let settings = Settings::default().with_lease(Duration::from_secs(2));
    let highwater = Highwater::connect_with(&url, settings)
        .await?
        .sql_file(file)?
        .keyed(Balances)
        .projection(Lengths);
    let (handle, store) = (highwater.handle(), highwater.event_store());
    let running = tokio::spawn(highwater.run(Until::Stopped));
    let seen = tokio::try_join!(watch(&handle), use_it(&handle, &store));
    handle.stop();
    let report = running.await??;
    seen?;
    for (name, outcome) in &report.outcomes {
        match outcome {
            Outcome::Stopped(error) => println!("{name} stopped: {}", sentence(error)),
            outcome => println!("{name} {outcome:?}"),
        }
    }
    Ok(())
}

fn sentence(error: &Error) -> String {
    let own = std::error::Error::source(error).and_then(|source| source.downcast_ref::<Refused>());
    match own {
        Some(own) => format!(
            "{own:?} at {}",
            error.event().map_or(0, |e| e.position.get())
        ),
        None => error.to_string(),
    }
}

/// Waits until the keyed view has stopped.
async fn watch(handle: &Handle) -> Result<(), BoxError> {
    let mut changes = handle.subscribe();
    while let Some(projections) = changes.next().await {
        let is_stopped = |name| {
            let found = projections.iter().find(|p| p.name.as_str() == name);
            found.is_some_and(|p| p.state == RunnerState::Stopped)
        };
        if is_stopped("balances") {
            return Ok(());
        }
    }
    Err("the run ended before the keyed view stopped".into())
}

async fn use_it(handle: &Handle, store: &EventStore) -> Result<(), BoxError> {
    let opened = NewEvent::new("Opened", &json!({ "owner": "ann" }))?;
    let deposited = NewEvent::new("Deposited", &json!({ "cents": 500 }))?;
    let events = [opened, deposited];
    let appended = store
        .append("a-1", ExpectedVersion::NoStream, &events)
        .await?;
    let last = appended.last().ok_or("nothing was appended")?;
    for name in ["counts", "balances", "lengths"] {
        match handle.wait(name, last, SOON).await? {
            Waited::Visible { position, .. } => println!("{name} is at {position}"),
            other => return Err(format!("{name}: {other}").into()),
        }
    }
    let paused = handle.pause("counts", SOON).await?;
    println!("counts paused: {}", paused.is_new);
    println!("counts resumed: {}", handle.resume("counts").await?);
    let too_rich = NewEvent::new("Deposited", &json!({ "cents": i64::MAX }))?;
    store
        .append("a-1", ExpectedVersion::Any, &[too_rich])
        .await?;
    let status = handle.status().await?;
    println!("{} projections", status.projections.len());
    Ok(())
}
