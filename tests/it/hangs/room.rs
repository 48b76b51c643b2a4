//! What a server runs out of: connections and disk.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use highwater::cluster::Cluster;
use tokio_postgres::{Client, NoTls};

use super::{LIMIT, are_exact, connect, engine, is_live, is_retrying};
use crate::exactness::{LEDGER, Running, ledger_in_rust, ledger_in_sql, positions};
use crate::support::{append_rows, eventually, sql_projection};

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_free_connection_is_waited_for() {
    let settings = [
        ("fsync", "off"),
        ("max_connections", "12"),
        ("superuser_reserved_connections", "0"),
        ("max_wal_senders", "0"),
    ];
    let cluster = Cluster::temporary_with(&settings).await.unwrap();
    let url = cluster.url("highwater");
    let mut client = connect(&url).await;
    highwater::internal::pg::migrate::migrate(&mut client)
        .await
        .unwrap();
    let engine = engine(&url)
        .projection(ledger_in_sql("in_sql"))
        .projection(ledger_in_rust("in_rust"));
    let monitor = engine.monitor();
    let mut hogs = all_that_are_free(&url).await;
    let running = Running::start(engine);
    for round in 1..=2 {
        is_retrying(&monitor, "53300").await;
        append_rows(&client, &format!("s{round}"), 1..=20).await;
        hogs.clear();
        are_exact(&client, &["in_sql", "in_rust"]).await;
        is_live(&monitor).await;
        if round == 1 {
            let others = "select pg_terminate_backend(pid) from pg_stat_activity
                where application_name like 'highwater%'";
            // Whoever comes first gets what becomes free; the engine holds none in the end.
            eventually("the engine has no connection", LIMIT, async || {
                hogs.extend(all_that_are_free(&url).await);
                !positions_of(&client, others).await
            })
            .await;
        }
    }
    running.stop().await;
    cluster.stop().await.unwrap();
}

async fn positions_of(client: &Client, terminate: &str) -> bool {
    !client.query(terminate, &[]).await.unwrap().is_empty()
}

/// Connections until there are no more.
async fn all_that_are_free(url: &str) -> Vec<Client> {
    let mut hogs = Vec::new();
    while let Ok((client, connection)) = tokio_postgres::connect(url, NoTls).await {
        tokio::spawn(connection);
        hogs.push(client);
    }
    hogs
}

/// A small file system of its own; unmounted when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// `None` where this user may not mount one.
    fn mount(at: &Path, owner: &Path) -> Option<SmallDisk> {
        std::fs::create_dir(at).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "highwater-test"])
            .arg(at)
            .output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            return None;
        }
        let owner = std::fs::metadata(owner).unwrap();
        chown(at, Some(owner.uid()), Some(owner.gid())).unwrap();
        Some(SmallDisk(at.to_owned()))
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    fn fill(&self) {
        use std::io::Write;
        let mut file = std::fs::File::create(self.filler()).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.filler()).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_waited_for() {
    let cluster = Cluster::temporary_with(&[("fsync", "off")]).await.unwrap();
    let place = tempfile::tempdir_in("/tmp").unwrap();
    std::os::unix::fs::chown(place.path(), None, None).unwrap();
    let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(place.path(), all).unwrap();
    let Some(disk) = SmallDisk::mount(&place.path().join("disk"), cluster.data_dir()) else {
        eprintln!("not tested: this user may not mount a file system");
        return cluster.stop().await.unwrap();
    };
    let url = cluster.url("highwater");
    let mut client = connect(&url).await;
    highwater::internal::pg::migrate::migrate(&mut client)
        .await
        .unwrap();
    let tablespace = format!("create tablespace small location '{}'", disk.0.display());
    client.batch_execute(&tablespace).await.unwrap();
    let text = format!(
        "-- highwater: up\n{LEDGER} tablespace small;\n-- highwater: apply
         insert into ledger (position, stream, version)
         select position, repeat(stream, 100), version from batch order by position;\n"
    );
    let engine = engine(&url)
        .projection(sql_projection("on_it", &text))
        .projection(ledger_in_sql("beside_it"));
    let monitor = engine.monitor();
    let running = Running::start(engine);
    append_rows(&client, "stream", 1..=10).await;
    are_exact(&client, &["on_it", "beside_it"]).await;
    disk.fill();
    append_rows(&client, "stream", 11..=1_000).await;
    eventually("the full disk is told", LIMIT, async || {
        let all = monitor.projections();
        let error = all[0].last_error.clone().unwrap_or_default();
        error.contains("53100")
    })
    .await;
    eventually("the other one goes on", LIMIT, async || {
        positions(&client, "select max(position) from beside_it.ledger").await[0] == 1_000
    })
    .await;
    disk.free();
    eventually("it goes on", LIMIT, async || {
        positions(
            &client,
            "select position from on_it.ledger order by applied",
        )
        .await
            == (1..=1_000).collect::<Vec<i64>>()
    })
    .await;
    is_live(&monitor).await;
    running.stop().await;
    cluster.stop().await.unwrap();
    drop(disk);
}
