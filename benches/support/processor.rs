//! How much of the processors some processes took.

use highwater::Result;

use super::{Db, failed};

/// The processes of the sessions on a database, the asking one left out.
pub(crate) async fn sessions(db: &Db) -> Result<Vec<i32>> {
    let sql = "select pid from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid()";
    let rows = db.client().await?.query(sql, &[]).await.map_err(failed)?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// Seconds of a core that these processes have taken since they began; those that are gone count nothing.
/// Known on Linux only.
pub(crate) fn seconds(processes: &[i32]) -> f64 {
    let of = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/stat")).ok();
    let ticks = |stat: String| -> Option<f64> {
        // Behind the name, which may hold anything: user and system time are the 12th and the 13th.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let user: f64 = fields.next()?.parse().ok()?;
        let system: f64 = fields.next()?.parse().ok()?;
        Some(user + system)
    };
    processes
        .iter()
        .filter_map(of)
        .filter_map(ticks)
        .sum::<f64>()
        / TICKS_A_SECOND
}

/// What Linux tells user space on every processor that PostgreSQL runs on.
const TICKS_A_SECOND: f64 = 100.0;
