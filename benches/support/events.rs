//! The work: accounts to which amounts are booked, and the read model of their sums.

use std::path::Path;
use std::sync::Arc;

use highwater::Result;
use highwater::internal::projection::file::ProjectionFile;
use highwater::internal::projection::{DynProjection, SqlProjection};

use super::{Db, failed, orders};

/// What a log is filled with. Streams take turns, so that every stretch of it has all of them.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    pub(crate) events: u64,
    pub(crate) streams: u64,
    /// Bytes of a note in each event, beside some 90 of the rest; it cannot be compressed.
    pub(crate) note: usize,
    /// One event in so many is `Booked`, the others are `Seen`.
    pub(crate) booked_every: u64,
}

impl Log {
    pub(crate) fn new(events: u64, streams: u64) -> Log {
        Log {
            events,
            streams,
            note: 60,
            booked_every: 1,
        }
    }

    /// Appends the events, and leaves the table as a server would have it that is not new.
    pub(crate) async fn fill(&self, db: &Db) -> Result<()> {
        self.fill_from(0, db).await
    }

    /// As [`Log::fill`], where the first `from` events are there.
    pub(crate) async fn fill_from(&self, from: u64, db: &Db) -> Result<()> {
        const AT_ONCE: u64 = 500_000;
        let client = db.client().await?;
        let mut from = from;
        while from < self.events {
            let to = (from + AT_ONCE).min(self.events);
            let sql = self.insert(from, to);
            client.batch_execute(&sql).await.map_err(failed)?;
            from = to;
        }
        orders::settle(db).await
    }

    fn insert(&self, from: u64, to: u64) -> String {
        let Log {
            streams,
            note,
            booked_every,
            ..
        } = *self;
        let note = match note.div_ceil(32) {
            0..=2 => format!("left(md5(i::text) || md5((-i)::text), {note})"),
            hashes => format!(
                "(select left(string_agg(md5(i * {hashes} + k || ''), ''), {note})
                    from generate_series(1, {hashes}) k)"
            ),
        };
        format!(
            "insert into highwater.event (stream, version, type, data)
             select 'account-' || i % {streams}, i / {streams} + 1,
                    case when i % {booked_every} = 0 then 'Booked' else 'Seen' end,
                    jsonb_build_object('account', i % {streams}, 'amount', i % 1000,
                                       'currency', 'EUR', 'customer', 'customer-' || i % 977,
                                       'note', {note})
               from generate_series({from}::bigint, {to}::bigint - 1) i order by i"
        )
    }
}

/// One row for each account, as the hand-written statement of [`super::reference`] fills it too.
pub(crate) const TABLE: &str =
    "(stream text primary key, bookings bigint not null, amount bigint not null,
    last_position bigint not null)";

/// What is read from `batch`, or from the event table itself.
pub(crate) fn sums_of(relation: &str) -> String {
    format!(
        "select stream, count(*), sum((data->>'amount')::bigint), max(position)
           from {relation} group by stream"
    )
}

/// How a projection adds a batch to the rows that are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upsert {
    OnConflict,
    /// From PostgreSQL 15 on. It joins the rows that are there once, where `on conflict` looks each new
    /// row's key up before it inserts it.
    Merge,
}

impl Upsert {
    /// The fastest for many new rows that a server of this major version can do.
    pub(crate) fn fastest(major: u32) -> Upsert {
        match major {
            0..=14 => Upsert::OnConflict,
            _ => Upsert::Merge,
        }
    }

    fn apply(self) -> String {
        let sums = sums_of("batch");
        match self {
            Upsert::OnConflict => format!(
                "insert into sums {sums}
on conflict (stream) do update
   set bookings = sums.bookings + excluded.bookings, amount = sums.amount + excluded.amount,
       last_position = excluded.last_position"
            ),
            Upsert::Merge => format!(
                "merge into sums
using ({sums}) as new (stream, bookings, amount, last_position) on sums.stream = new.stream
when matched then update
   set bookings = sums.bookings + new.bookings, amount = sums.amount + new.amount,
       last_position = new.last_position
when not matched then insert values (new.stream, new.bookings, new.amount, new.last_position)"
            ),
        }
    }
}

/// The read model of sums as a SQL projection: `header` is what stands in its TOML block.
pub(crate) fn sums_text(header: &str) -> String {
    sums_text_by(Upsert::OnConflict, header)
}

/// The same, written in one way or the other.
pub(crate) fn sums_text_by(upsert: Upsert, header: &str) -> String {
    format!(
        "/* highwater\n{header}\n*/
-- highwater: up
create table sums {TABLE};
-- highwater: apply
{};
",
        upsert.apply()
    )
}

/// The SQL projection of this name.
pub(crate) fn sql_projection(name: &str, text: &str) -> Result<Arc<dyn DynProjection>> {
    let path = format!("projections/{name}.sql");
    let file = ProjectionFile::parse(Path::new(&path), text)?;
    Ok(Arc::new(SqlProjection::new(file)))
}
