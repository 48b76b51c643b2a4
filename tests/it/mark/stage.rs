//! What the schedules are played on: a table, its follower, and writers with sessions of their own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use highwater::internal::pg::connect::Connector;
use highwater::internal::pg::database::Database;
use highwater::internal::source::table::{EventTable, GapPolicy, TableSource};
use highwater::internal::source::{
    Blocker, Follower, OpenGap, PostgresLog, ReadRequest, Source, Step,
};
use highwater::testing::TestDatabase;
use highwater::{Position, Range, Result};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

pub(super) const LIMIT: Duration = crate::support::PATIENCE;

/// Our own table's name, as SQL text.
pub(super) const OWN: &str = "highwater.event";

/// A table of one's own with this `position` column; every other column has a default.
pub(super) fn table_sql(name: &str, position: &str) -> String {
    format!(
        "create table {name} (position {position}, stream text not null default 's',
         version bigint not null default 1, type text not null default 'T',
         data jsonb not null default '{{}}', metadata jsonb not null default '{{}}',
         id uuid not null default gen_random_uuid(),
         recorded_at timestamptz not null default clock_timestamp())"
    )
}

pub(super) fn table(relation: &str, gap: GapPolicy) -> EventTable {
    EventTable {
        relation: relation.to_owned(),
        gap,
        identity: Some("a table of one's own".to_owned()),
    }
}

pub(super) fn by_sequence(relation: &str) -> EventTable {
    table(relation, GapPolicy::Sequence { named: None })
}

/// A follower on a table, and what a reader of its steps has been given.
pub(super) struct Stage {
    url: String,
    pub(super) source: Arc<TableSource>,
    follower: Box<dyn Follower>,
    relation: String,
    mark: Position,
    delivered: Vec<i64>,
    types: BTreeSet<String>,
    _database: Option<TestDatabase>,
}

impl Stage {
    /// On highwater's own table, which is empty.
    pub(super) async fn new() -> Stage {
        Stage::over(TestDatabase::new().await, EventTable::own()).await
    }

    /// On a table of one's own, made by `sql`.
    pub(super) async fn with(sql: &str, table: EventTable) -> Stage {
        let database = TestDatabase::new().await;
        database.client().await.batch_execute(sql).await.unwrap();
        Stage::over(database, table).await
    }

    pub(super) async fn over(database: TestDatabase, table: EventTable) -> Stage {
        let mut stage = Stage::at(database.url(), table, 0).await.unwrap();
        stage._database = Some(database);
        stage
    }

    pub(super) async fn at(url: &str, table: EventTable, floor: i64) -> Result<Stage> {
        let relation = table.relation.clone();
        let source = source(url, table);
        let mark = Position::new(floor);
        Ok(Stage {
            url: url.to_owned(),
            follower: source.follow(mark).await?,
            source,
            relation,
            mark,
            delivered: Vec::new(),
            types: BTreeSet::new(),
            _database: None,
        })
    }

    /// Begins to follow once more, as after a lost connection.
    pub(super) async fn follow_again(&mut self, floor: i64) {
        self.mark = Position::new(floor);
        self.follower = self.source.follow(self.mark).await.unwrap();
        self.delivered.retain(|&position| position <= floor);
    }

    pub(super) async fn session(&self) -> Session {
        Session::open(&self.url, &self.relation).await
    }

    pub(super) async fn sessions<const N: usize>(&self) -> [Session; N] {
        let mut opened = Vec::new();
        for _ in 0..N {
            opened.push(self.session().await);
        }
        opened.try_into().ok().unwrap()
    }

    /// One step; the events of what it passed are read and kept.
    pub(super) async fn step(&mut self) -> Step {
        self.try_step().await.unwrap()
    }

    pub(super) async fn try_step(&mut self) -> Result<Step> {
        let step = self.follower.step().await?;
        assert_eq!(step.passed.after(), self.mark, "steps follow each other");
        assert_eq!(step.passed.through(), step.mark);
        self.mark = step.mark;
        let occurred = step.occurred.iter().flat_map(|occurred| &occurred.types);
        self.types.extend(occurred.map(ToString::to_string));
        if !step.passed.is_empty() {
            self.read(step.passed).await?;
        }
        Ok(step)
    }

    /// The types that were reported in the passed range: a projection that wants none of them reads
    /// nothing.
    pub(super) fn types(&self) -> Vec<&str> {
        self.types.iter().map(String::as_str).collect()
    }

    async fn read(&mut self, range: Range) -> Result<()> {
        let request = ReadRequest {
            range,
            types: None,
            events_max: 1_000_000,
            bytes_max: usize::MAX,
        };
        let batch = self.source.read(request).await?;
        let positions = batch.events.iter().map(|event| event.position.get());
        self.delivered.extend(positions);
        Ok(())
    }

    /// Steps until the mark is at `position`.
    pub(super) async fn reaches(&mut self, position: i64) {
        let started = Instant::now();
        let mut last = self.step().await;
        while last.mark.get() < position {
            assert!(started.elapsed() < LIMIT, "not at {position}: {last:?}");
            pause(&last).await;
            last = self.step().await;
        }
        assert_eq!(last.mark.get(), position);
    }

    /// Steps until a snapshot has found holders, and then for some more: the mark is at `position`
    /// all the time. Returns the names of the holders.
    pub(super) async fn is_held_at(&mut self, position: i64) -> Vec<String> {
        let started = Instant::now();
        let mut blocked_by = Vec::new();
        let mut steps_since = 0;
        while steps_since < 20 {
            let step = self.step().await;
            assert!(step.mark.get() <= position, "passed {position}: {step:?}");
            let gap = step.gap.clone();
            if let Some(gap) = gap.filter(|gap| !gap.blocked_by.is_empty()) {
                assert_eq!(step.mark.get(), position, "{gap:?}");
                assert_eq!(gap.from.get(), position + 1);
                blocked_by = gap.blocked_by;
                steps_since += 1;
            }
            assert!(started.elapsed() < LIMIT, "not held: {step:?}");
            pause(&step).await;
        }
        blocked_by
    }

    /// Steps until the mark is at `position`, without ever finding a holder.
    pub(super) async fn reaches_unheld(&mut self, position: i64) {
        let started = Instant::now();
        loop {
            let step = self.step().await;
            if let Some(gap) = step.gap.as_ref().filter(|gap| !gap.blocked_by.is_empty()) {
                let holders = self.source.blockers(gap).await.unwrap();
                panic!("held by {holders:?}");
            }
            if step.mark.get() == position {
                return;
            }
            assert!(started.elapsed() < LIMIT, "not at {position}: {step:?}");
        }
    }

    /// Steps until one fails.
    pub(super) async fn fails(&mut self) -> highwater::Error {
        let started = Instant::now();
        loop {
            match self.try_step().await {
                Err(error) => return error,
                Ok(step) => pause(&step).await,
            }
            assert!(started.elapsed() < LIMIT, "it does not fail");
        }
    }

    pub(super) async fn explained(&self, names: &[String]) -> Vec<Blocker> {
        let gap = OpenGap {
            from: self.mark.next(),
            to: self.mark.next(),
            since: Instant::now(),
            blocked_by: names.to_vec(),
        };
        self.source.blockers(&gap).await.unwrap()
    }

    /// What was delivered so far, in the order of delivery.
    pub(super) fn delivered(&self) -> &[i64] {
        &self.delivered
    }

    /// Everything that is committed was delivered, once and in order.
    pub(super) async fn delivered_all(&self) {
        let session = self.session().await;
        let sql = format!("select position from {} order by position", self.relation);
        assert_eq!(self.delivered, session.numbers(&sql).await);
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }
}

pub(super) fn source(url: &str, table: EventTable) -> Arc<TableSource> {
    let connector = Connector::parse(url).unwrap();
    let database = Database::new(connector, 4).unwrap();
    Arc::new(TableSource::new("default", database, None, table))
}

/// As long as the follower wants, so that a loop of steps is no burden.
pub(super) async fn pause(step: &Step) {
    let again = step.again.unwrap_or(Duration::from_millis(2));
    tokio::time::sleep(again).await;
}

/// A writer.
pub(super) struct Session {
    pub(super) client: Client,
    relation: String,
}

impl Session {
    pub(super) async fn open(url: &str, relation: &str) -> Session {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
        tokio::spawn(connection);
        Session {
            client,
            relation: relation.to_owned(),
        }
    }

    pub(super) async fn run(&self, sql: &str) {
        if let Err(error) = self.client.batch_execute(sql).await {
            panic!("{sql}: {error:?}");
        }
    }

    /// One event in a stream of its own; returns its position.
    pub(super) async fn append(&self) -> i64 {
        self.append_to(&self.relation).await
    }

    pub(super) async fn append_to(&self, relation: &str) -> i64 {
        let sql = format!(
            "insert into {relation} (stream, version, type, data)
             values (gen_random_uuid()::text, 1, 'T', '{{}}') returning position"
        );
        self.number(&sql).await
    }

    pub(super) async fn number(&self, sql: &str) -> i64 {
        let rows = self.numbers(sql).await;
        assert_eq!(rows.len(), 1, "{sql}");
        rows[0]
    }

    /// The first column of every row, over the simple protocol: it may be in any transaction.
    pub(super) async fn numbers(&self, sql: &str) -> Vec<i64> {
        let messages = match self.client.simple_query(sql).await {
            Ok(messages) => messages,
            Err(error) => panic!("{sql}: {error:?}"),
        };
        let number = |message: SimpleQueryMessage| match message {
            SimpleQueryMessage::Row(row) => Some(row.get(0).unwrap().parse().unwrap()),
            _ => None,
        };
        messages.into_iter().filter_map(number).collect()
    }

    pub(super) async fn text(&self, sql: &str) -> String {
        let row = self.client.query_one(sql, &[]).await.unwrap();
        row.get(0)
    }

    /// A name for a prepared transaction that no other test uses.
    pub(super) async fn gid(&self, name: &str) -> String {
        let database = self.text("select current_database()::text").await;
        format!("{database} {name}")
    }
}
