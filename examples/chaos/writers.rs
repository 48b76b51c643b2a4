//! Writers who append as contexts do, and remember the answers of the server.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;
use tokio_postgres::types::Type;
use uuid::Uuid;

use crate::Outcome;
use crate::schedule::Random;
use crate::servers::Address;

const WRITERS: u64 = 16;
const STREAMS: u64 = 300;
/// A transaction that takes longer is left, and what became of it is looked up in the end.
const LIMIT: Duration = Duration::from_secs(30);

/// The answers that writers got.
#[derive(Default)]
pub(crate) struct Answers {
    pub(crate) committed: Vec<Uuid>,
    /// The events of transactions whose answer was lost, each all there or not at all.
    pub(crate) unknown: Vec<Vec<Uuid>>,
    /// What was rolled back, or cannot have been committed.
    pub(crate) undone: Vec<Uuid>,
}

impl Answers {
    pub(crate) fn add(&mut self, other: Answers) {
        self.committed.extend(other.committed);
        self.unknown.extend(other.unknown);
        self.undone.extend(other.undone);
    }
}

/// How a transaction ended.
enum End {
    Committed,
    Undone,
    Unknown,
}

/// One writer.
pub(crate) struct Writer {
    random: Random,
    /// Of the transaction at hand.
    written: Vec<Uuid>,
    answers: Answers,
}

impl Writer {
    pub(crate) fn new(seed: u64) -> Writer {
        Writer {
            random: Random::new(seed),
            written: Vec::new(),
            answers: Answers::default(),
        }
    }

    pub(crate) fn answers(self) -> Answers {
        self.answers
    }

    async fn run(mut self, address: Address, stop: Arc<AtomicBool>) -> Answers {
        while !stop.load(Ordering::Relaxed) {
            let Ok(client) = address.connect().await else {
                sleep(Duration::from_millis(100)).await;
                continue;
            };
            while !stop.load(Ordering::Relaxed) && !client.is_closed() {
                self.transaction(&client).await;
                let pause = self.random.below(150);
                sleep(Duration::from_millis(pause)).await;
            }
        }
        self.answers
    }

    async fn transaction(&mut self, client: &Client) {
        let ended = timeout(LIMIT, self.attempt(client)).await;
        self.settle(ended.unwrap_or(End::Unknown));
    }

    fn settle(&mut self, end: End) {
        let written = std::mem::take(&mut self.written);
        match end {
            End::Committed => self.answers.committed.extend(written),
            End::Undone => self.answers.undone.extend(written),
            End::Unknown => self.answers.unknown.push(written),
        }
    }

    async fn attempt(&mut self, client: &Client) -> End {
        if self.random.below(6) == 0 {
            let appended = self.event(client, None).await;
            return unless_refused(appended);
        }
        // Before the word commit is on its way, nothing can be committed.
        if self.unfinished(client).await.is_err() {
            let _ = client.batch_execute("rollback").await;
            return End::Undone;
        }
        if self.random.below(10) == 0 {
            let _ = client.batch_execute("rollback").await;
            return End::Undone;
        }
        unless_refused(client.batch_execute("commit").await)
    }

    /// One to four events and a pause.
    async fn unfinished(&mut self, client: &Client) -> Result<(), tokio_postgres::Error> {
        client.batch_execute("begin").await?;
        for _ in 0..=self.random.below(4) {
            match self.random.below(10) {
                0 => {
                    client.batch_execute("savepoint s").await?;
                    self.event(client, None).await?;
                    client.batch_execute("rollback to s").await?;
                    self.answers.undone.extend(self.written.pop());
                }
                1 => {
                    client.batch_execute("savepoint s").await?;
                    self.event(client, None).await?;
                    client.batch_execute("release s").await?;
                }
                _ => self.event(client, None).await?,
            }
        }
        let most = self.random.one_of(&[5, 20, 20, 20, 300]);
        sleep(Duration::from_millis(self.random.below(most))).await;
        Ok(())
    }

    /// One event: inserted as the next version of its stream, or appended by the function.
    async fn event(
        &mut self,
        client: &Client,
        kind: Option<&str>,
    ) -> Result<(), tokio_postgres::Error> {
        let stream = format!("stream-{}", self.random.below(STREAMS));
        let name = if self.random.below(20) == 0 {
            "Wanted"
        } else {
            "T"
        };
        let sql = if self.random.below(3) == 0 {
            "select highwater.append($1, $2, $3::text::jsonb, '{}', $4)"
        } else {
            "insert into highwater.event (stream, type, data, id, version)
             select $1, $2, $3::text::jsonb, $4, coalesce(max(version), 0) + 1
               from highwater.event where stream = $1"
        };
        let data = match kind {
            Some(kind) => format!("{{\"kind\": \"{kind}\"}}"),
            None => "{\"n\": 1}".to_owned(),
        };
        let id = Uuid::from_u64_pair(self.random.below(u64::MAX), self.random.below(u64::MAX));
        self.written.push(id);
        let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 4] = [
            (&stream, Type::TEXT),
            (&name, Type::TEXT),
            (&data, Type::TEXT),
            (&id, Type::UUID),
        ];
        client.query_typed(sql, &parameters).await.map(drop)
    }

    /// Appends an event of this kind, each try with an id of its own. Its id, once it is committed.
    pub(crate) async fn append(&mut self, address: &Address, kind: &str) -> Outcome<Uuid> {
        for _ in 0..100 {
            let client = address.connected().await?;
            let appended = timeout(LIMIT, self.event(&client, Some(kind))).await;
            let end = appended.map_or(End::Unknown, unless_refused);
            let is_committed = matches!(end, End::Committed);
            let id = self.written.first().copied();
            self.settle(end);
            if let (true, Some(id)) = (is_committed, id) {
                return Ok(id);
            }
        }
        Err("a poison event is not appended in 100 tries".into())
    }
}

/// How a transaction ended whose last statement ended so.
fn unless_refused<T>(done: Result<T, tokio_postgres::Error>) -> End {
    let Err(error) = done else {
        return End::Committed;
    };
    // Class 57 is the server going down, also after the commit, while it waited for the replica.
    match error.code().map(|state| state.code()) {
        Some(state) if !state.starts_with("57") => End::Undone,
        _ => End::Unknown,
    }
}

/// Writers at work.
pub(crate) struct Writers {
    tasks: JoinSet<Answers>,
    stop: Arc<AtomicBool>,
}

impl Writers {
    pub(crate) fn start(address: &Address, seed: u64) -> Writers {
        let stop = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for number in 1..=WRITERS {
            let writer = Writer::new(seed ^ (number << 32));
            tasks.spawn(writer.run(address.clone(), stop.clone()));
        }
        Writers { tasks, stop }
    }

    pub(crate) async fn stop(self) -> Answers {
        self.stop.store(true, Ordering::Relaxed);
        let mut answers = Answers::default();
        for of_one in self.tasks.join_all().await {
            answers.add(of_one);
        }
        answers
    }
}
