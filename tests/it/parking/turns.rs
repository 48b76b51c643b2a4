//! Parking and retries beside everything else that a process and a partition have to do.

use highwater::internal::pg::connect::Connector;
use highwater::internal::pg::database::Database;

use super::*;

/// All that a process has are these sessions.
fn sessions(database: &TestDatabase, most: usize) -> Database {
    Database::new(Connector::parse(database.url()).unwrap(), most).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_with_one_session_for_batches_parks_and_continues() {
    for most in [1, 2] {
        let (database, client) = log(4, &[8, 14]).await;
        let engine = Engine::new(sessions(&database, most), Settings::default())
            .source(database.source())
            .projection(applied("partitions = 2"));
        let running = engine.run(Until::CaughtUp, CancellationToken::new());
        let report = tokio::time::timeout(LIMIT, running).await;
        caught_up(&report.expect("it waits for a turn").unwrap());
        assert_eq!(dead_letters_at(&client).await, [8, 13, 14, 18, 19]);
        is_in_order(&client).await;
    }
}

fn with_lease(database: &TestDatabase) -> Engine {
    let mut settings = Settings::default();
    settings.lease = Duration::from_secs(1);
    Engine::new(database.pooled(), settings)
        .source(database.source())
        .projection(applied(""))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_cannot_be_retried_now_blocks_no_other_key() {
    let (database, client) = log(4, &[8, 9]).await;
    caught_up(&run(&database, applied("")).await);
    assert_eq!(dead_letters_at(&client).await, [8, 9, 13, 14, 18, 19]);
    // As where somebody holds a lock on the row that it writes.
    let is_locked = "create function public.is_locked() returns trigger language plpgsql as $$
        begin raise exception using errcode = '55P03', message = 'somebody has it'; end $$;
        create trigger is_locked before insert on applied.applied for each row
            when (new.stream = 'c') execute function public.is_locked()";
    client.batch_execute(is_locked).await.unwrap();
    poisoned(&client, &[]).await;
    retry(&database, Selection::All).await;
    let stop = CancellationToken::new();
    let engine = tokio::spawn(with_lease(&database).run(Until::Stopped, stop.clone()));
    eventually("the other key is free", LIMIT, async || {
        dead_letters_at(&client).await == [8, 13, 18]
    })
    .await;
    append_rows(&client, "a", 5..=6).await;
    append_rows(&client, "d", 5..=5).await;
    eventually("other keys flow", LIMIT, async || {
        let sql = "select count(*) from applied.applied where position > 20";
        one::<i64>(&client, sql).await == 3
    })
    .await;
    let asked = "select count(*) from highwater.dead_letter where retry_requested_at is not null";
    assert_eq!(one::<i64>(&client, asked).await, 3, "it is not given up");
    let sql = "drop trigger is_locked on applied.applied";
    client.batch_execute(sql).await.unwrap();
    eventually("it is tried again by itself", LIMIT, async || {
        dead_letters_at(&client).await.is_empty()
    })
    .await;
    is_in_order(&client).await;
    stop.cancel();
    engine.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_is_to_end_waits_for_what_was_asked_for() {
    let (database, client) = log(4, &[8]).await;
    caught_up(&run(&database, applied("")).await);
    poisoned(&client, &[]).await;
    // The first two tries meet a lock.
    let is_locked = "create sequence public.tries;
        create function public.is_locked() returns trigger language plpgsql as $$
        begin
            if nextval('public.tries') <= 2 then
                raise exception using errcode = '55P03', message = 'somebody has it';
            end if;
            return new;
        end $$;
        create trigger is_locked before insert on applied.applied for each row
            execute function public.is_locked()";
    client.batch_execute(is_locked).await.unwrap();
    retry(&database, Selection::All).await;
    let running = with_lease(&database).run(Until::CaughtUp, CancellationToken::new());
    caught_up(&running.await.unwrap());
    assert_eq!(dead_letters_at(&client).await, [0_i64; 0]);
    is_in_order(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn other_keys_flow_while_many_dead_letters_are_retried() {
    let (database, client) = log(0, &[1]).await;
    append_rows(&client, "c", 1..=300).await;
    caught_up(&run(&database, applied("")).await);
    assert_eq!(dead_letters_at(&client).await.len(), 300);
    poisoned(&client, &[]).await;
    append_rows(&client, "a", 1..=1).await;
    retry(&database, Selection::All).await;
    caught_up(&run(&database, applied("")).await);
    let sql = "select (select n from applied.applied where stream = 'a')
                      < (select max(n) from applied.applied where stream = 'c')";
    assert!(one::<bool>(&client, sql).await, "it waited for all letters");
    is_in_order(&client).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_more_may_be_parked_retries_make_room_instead_of_a_stop() {
    // Of each of a and b there are four; a limit of eight is full.
    let (database, client) = log(4, &[1, 2]).await;
    caught_up(&run(&database, applied("")).await);
    assert_eq!(dead_letters_at(&client).await.len(), 8);
    poisoned(&client, &[]).await;
    retry(&database, Selection::All).await;
    append_rows(&client, "b", 5..=6).await;
    let mut settings = Settings::default();
    settings.dead_letters_max = 8;
    let engine = Engine::new(database.pooled(), settings)
        .source(database.source())
        .projection(applied(""));
    let running = engine.run(Until::CaughtUp, CancellationToken::new());
    caught_up(&running.await.unwrap());
    assert_eq!(dead_letters_at(&client).await, [0_i64; 0]);
    is_in_order(&client).await;
}
