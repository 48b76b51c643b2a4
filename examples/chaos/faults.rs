//! The faults come.

use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use crate::Outcome;
use crate::arena::Arena;
use crate::journal::locked;
use crate::schedule::{Fate, Fault};
use crate::watch::take_over;
use crate::writers::Writer;

/// The exit code of a process that SIGTERM ended before it had a handler for it.
const TERMINATED: i32 = 128 + 15;
/// How long an event that cannot be applied may take until it is parked.
const PARKED_LIMIT: Duration = Duration::from_secs(30);

/// Lets each fault come in its time, and waits until all of them are over.
pub(crate) async fn play(arena: &Arc<Arena>, schedule: &[(Duration, Fault)], seed: u64) {
    let began = Instant::now();
    let mut running = JoinSet::new();
    for (number, (at, fault)) in (0_u64..).zip(schedule) {
        sleep_until(began + *at).await;
        let (arena, fault) = (arena.clone(), fault.clone());
        running.spawn(async move {
            let seed = seed ^ 0x5eed ^ (number << 40);
            if let Err(error) = befall(&arena, &fault, seed).await {
                arena.violation(format!("{fault}: {error}"));
            }
        });
    }
    running.join_all().await;
}

/// Says that it begins, which is when what it needs is free.
fn begin(arena: &Arena, fault: &Fault) {
    arena.journal.fault(&fault.to_string());
    *locked(&arena.tally).faults.entry(fault.kind()).or_default() += 1;
}

async fn befall(arena: &Arc<Arena>, fault: &Fault, seed: u64) -> Outcome<()> {
    match *fault {
        Fault::Kill { instance, back } => {
            let mut instance = arena.instances[instance].lock().await;
            begin(arena, fault);
            let pid = instance.pid();
            instance.kill().await?;
            if let Some(pid) = pid {
                tokio::spawn(take_over(arena.clone(), pid, "after a kill"));
            }
            sleep(back).await;
            instance.start(&arena.project).await
        }
        Fault::Stop { instance, length } => {
            let instance = arena.instances[instance].lock().await;
            begin(arena, fault);
            instance.signal(Signal::SIGSTOP);
            if let Some(pid) = instance.pid() {
                tokio::spawn(take_over(arena.clone(), pid, "after a SIGSTOP"));
            }
            sleep(length).await;
            instance.signal(Signal::SIGCONT);
            Ok(())
        }
        Fault::Cut { instance } => {
            let instance = arena.instances[instance].lock().await;
            begin(arena, fault);
            instance.proxy.cut();
            Ok(())
        }
        Fault::Freeze { instance, length } => {
            let instance = arena.instances[instance].lock().await;
            begin(arena, fault);
            instance.proxy.freeze(true);
            sleep(length).await;
            instance.proxy.freeze(false);
            Ok(())
        }
        Fault::Poison {
            events,
            fate,
            after,
        } => {
            begin(arena, fault);
            poison(arena, events, fate, after, seed).await
        }
        Fault::Partitions {
            projection,
            partitions,
        } => {
            let _one = arena.deploying.lock().await;
            begin(arena, fault);
            arena.project.set_partitions(projection, partitions)?;
            deploy(arena).await
        }
        Fault::Pause { projection, length } => {
            begin(arena, fault);
            arena.command(&["pause", projection]).await?;
            sleep(length).await;
            arena.command(&["resume", projection]).await.map(drop)
        }
        _ => befall_server(arena, fault).await,
    }
}

async fn befall_server(arena: &Arena, fault: &Fault) -> Outcome<()> {
    let mut servers = arena.servers.lock().await;
    begin(arena, fault);
    arena.outage();
    let done = match *fault {
        Fault::Terminate => terminate(arena).await,
        Fault::Crash { backend } => servers.crash(backend).await,
        Fault::Restart { how, down } => servers.restart(how, down).await,
        Fault::Failover { planned } => servers.fail_over(planned).await,
        _ => Ok(()),
    };
    arena.outage();
    done
}

async fn terminate(arena: &Arena) -> Outcome<()> {
    let client = arena.address.connect().await?;
    let sql = "select pg_terminate_backend(pid) from pg_stat_activity
                where application_name like 'highwater%' and pid % 2 = 0";
    client.query(sql, &[]).await?;
    Ok(())
}

/// Restarts one instance after the other, in order.
async fn deploy(arena: &Arena) -> Outcome<()> {
    for instance in &arena.instances {
        let mut instance = instance.lock().await;
        let number = instance.number;
        match instance.drain().await? {
            // One that was killed may not be back yet, or not listen for signals yet.
            Some(0 | TERMINATED) | None => {}
            Some(code) => arena.ended(number, code),
        }
        instance.start(&arena.project).await?;
    }
    Ok(())
}

/// Appends events of a kind that nobody knows, and later makes it known, or gives them up.
async fn poison(arena: &Arena, events: u64, fate: Fate, after: Duration, seed: u64) -> Outcome<()> {
    let kind = {
        let mut tally = locked(&arena.tally);
        tally.kinds += 1;
        format!("kind-{}", tally.kinds)
    };
    let mut writer = Writer::new(seed);
    let mut ids = Vec::new();
    for _ in 0..events {
        ids.push(writer.append(&arena.address, &kind).await?);
    }
    locked(&arena.tally).poison.add(writer.answers());
    sleep(after).await;
    match fate {
        Fate::Mended => {
            fix(arena, &kind).await?;
            arena
                .command(&["dead-letters", "retry", "parks", "--all"])
                .await?;
        }
        Fate::Discarded => {
            let limit = Instant::now() + PARKED_LIMIT;
            for id in ids {
                discard(arena, id, limit).await?;
            }
            arena
                .command(&["dead-letters", "retry", "parks", "--all"])
                .await?;
        }
    }
    Ok(())
}

async fn fix(arena: &Arena, kind: &str) -> Outcome<()> {
    let sql = format!("insert into public.known values ('{kind}') on conflict do nothing");
    for _ in 0..10 {
        let client = arena.address.connected().await?;
        if client.batch_execute(&sql).await.is_ok() {
            return Ok(());
        }
    }
    Err(format!("{kind} cannot be made known").into())
}

/// Gives an event up once it is parked.
async fn discard(arena: &Arena, id: Uuid, limit: Instant) -> Outcome<()> {
    let parked = format!("select from highwater.dead_letter where id = '{id}'");
    loop {
        let client = arena.address.connected().await?;
        if client
            .query(&parked, &[])
            .await
            .is_ok_and(|rows| !rows.is_empty())
        {
            break;
        }
        if Instant::now() > limit {
            // What stands still is for the end to see; there it is fixed.
            arena
                .journal
                .say(&format!("event {id} is not parked within {PARKED_LIMIT:?}"));
            return Ok(());
        }
        sleep(Duration::from_millis(100)).await;
    }
    let id = id.to_string();
    let discard = [
        "dead-letters",
        "discard",
        "parks",
        "--event",
        &id,
        "--reason",
        "chaos",
    ];
    arena.command(&discard).await.map(drop)
}
