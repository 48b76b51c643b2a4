//! Each step of the proof left out: a reader written wrong on purpose loses an event, and in the
//! same schedule the follower does not.

use super::stage::{LIMIT, Session, Stage};
use crate::support::eventually;

/// Who holds the lock on the sequence of our own table.
const HOLDERS: &str = "select count(*) from pg_locks l
    where l.relation = 'highwater.event_position_seq'::regclass
      and l.mode = 'RowExclusiveLock' and l.granted
      and l.database = (select oid from pg_database where datname = current_database())";

fn rows(through: i64) -> String {
    format!("select position from highwater.event where position <= {through} order by position")
}

/// The follower, two writers and a reader that does it wrong.
async fn cast() -> (Stage, Session, Session, Session) {
    let mut stage = Stage::new().await;
    stage.step().await;
    let [slow, quick, wrong] = stage.sessions().await;
    (stage, slow, quick, wrong)
}

/// Positions 1, not committed, and 2, committed; the follower has seen it.
async fn gap(stage: &mut Stage, slow: &Session, quick: &Session) {
    slow.run("begin").await;
    slow.append().await;
    quick.append().await;
    stage.is_held_at(0).await;
}

async fn the_follower_lost_nothing(mut stage: Stage, head: i64) {
    stage.reaches(head).await;
    stage.delivered_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn locks_before_rows_lose_an_event() {
    let (mut stage, slow, quick, wrong) = cast().await;
    let holders = wrong.number(HOLDERS).await;
    gap(&mut stage, &slow, &quick).await;
    let read = wrong.numbers(&rows(i64::MAX)).await;
    slow.run("commit").await;
    assert_eq!(
        (holders, read),
        (0, vec![2]),
        "nobody held it, so 2 is safe"
    );
    the_follower_lost_nothing(stage, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_snapshot_and_the_second_read_in_one_statement_lose_an_event() {
    let (mut stage, slow, quick, wrong) = cast().await;
    gap(&mut stage, &slow, &quick).await;
    // The commit falls between the snapshot of the statement and its read of the locks. Which of
    // the two it names first does not matter: the snapshot is taken before either.
    slow.run("select pg_advisory_lock(1)").await;
    let one_statement = format!(
        "with open as materialized (
             select case when pg_advisory_xact_lock(1) is null then 1 else 0 end as door
         )
         select case when ({HOLDERS} and l.pid is distinct from -1 - o.door) = 0
                     then (select string_agg(position::text, ',' order by position)
                             from highwater.event where position <= 2)
                end
         from open o"
    );
    let reading = tokio::spawn(async move { wrong.text(&one_statement).await });
    let waits = "select count(*) from pg_locks l where l.locktype = 'advisory' and not l.granted
        and l.database = (select oid from pg_database where datname = current_database())";
    eventually("the statement has begun", LIMIT, async || {
        quick.number(waits).await == 1
    })
    .await;
    slow.run("commit; select pg_advisory_unlock(1)").await;
    assert_eq!(
        reading.await.unwrap(),
        "2",
        "no holder, and no event either"
    );
    the_follower_lost_nothing(stage, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_second_read_an_event_is_lost() {
    let (mut stage, slow, quick, wrong) = cast().await;
    gap(&mut stage, &slow, &quick).await;
    let read = wrong.numbers(&rows(i64::MAX)).await;
    assert_eq!(wrong.number(HOLDERS).await, 1);
    slow.run("commit").await;
    assert_eq!(wrong.number(HOLDERS).await, 0);
    assert_eq!(
        read,
        [2],
        "the holders have ended, and this is what was read"
    );
    the_follower_lost_nothing(stage, 2).await;
}

/// Keeps the follower from looking at the locks, which reads this catalogue, while rows can be read.
async fn shut(door: &Session) {
    door.run("begin; lock table pg_subscription_rel in access exclusive mode")
        .await;
}

async fn until_the_snapshot_waits(observer: &Session) {
    let waits = "select count(*) from pg_locks
                  where relation = 'pg_subscription_rel'::regclass and not granted
                    and database = (select oid from pg_database where datname = current_database())";
    eventually("the look waits", LIMIT, async || {
        observer.number(waits).await == 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_between_the_rows_and_the_snapshot_is_in_the_second_read() {
    let (mut stage, slow, quick, door) = cast().await;
    slow.run("begin").await;
    let late = "insert into highwater.event (stream, version, type, data)
                values ('l', 1, 'Late', '{}')";
    slow.run(late).await;
    quick.append().await;
    shut(&door).await;
    let commit = async {
        until_the_snapshot_waits(&quick).await;
        slow.run("commit").await;
        door.run("commit").await;
    };
    let (step, ()) = tokio::join!(stage.step(), commit);
    assert_eq!(step.mark.get(), 0, "the rows were read before the commit");
    stage.reaches(2).await;
    stage.delivered_all().await;
    assert_eq!(stage.types(), ["Late", "T"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_read_beyond_what_was_seen_first_loses_an_event() {
    let (mut stage, slow, quick, wrong) = cast().await;
    let [late, door] = stage.sessions().await;
    gap(&mut stage, &slow, &quick).await;
    shut(&door).await;
    // Both have seen 2 and wait for the one holder. Meanwhile:
    let meanwhile = async {
        until_the_snapshot_waits(&quick).await;
        late.run("begin").await;
        late.append().await;
        quick.append().await;
        slow.run("commit").await;
        let read = wrong.numbers(&rows(i64::MAX)).await;
        assert_eq!(read, [1, 2, 4], "its mark would be 4, and 3 is still open");
        door.run("commit").await;
    };
    tokio::join!(stage.reaches(2), meanwhile);
    stage.is_held_at(2).await;
    late.run("commit").await;
    the_follower_lost_nothing(stage, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_snapshot_for_a_round_loses_an_event() {
    let (mut stage, slow, quick, wrong) = cast().await;
    gap(&mut stage, &slow, &quick).await;
    wrong.run("begin isolation level repeatable read").await;
    assert_eq!(wrong.numbers(&rows(i64::MAX)).await, [2]);
    assert_eq!(wrong.number(HOLDERS).await, 1);
    slow.run("commit").await;
    assert_eq!(wrong.number(HOLDERS).await, 0, "the locks have no snapshot");
    assert_eq!(wrong.numbers(&rows(2)).await, [2], "the rows have");
    the_follower_lost_nothing(stage, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_a_cursor_that_was_opened_earlier_lose_an_event() {
    let (mut stage, slow, quick, wrong) = cast().await;
    gap(&mut stage, &slow, &quick).await;
    wrong.run("begin").await;
    wrong
        .run(&format!("declare c cursor for {}", rows(2)))
        .await;
    assert_eq!(wrong.number(HOLDERS).await, 1);
    slow.run("commit").await;
    assert_eq!(wrong.number(HOLDERS).await, 0);
    assert_eq!(wrong.numbers("fetch all from c").await, [2]);
    the_follower_lost_nothing(stage, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_it_in_a_stable_function_loses_an_event_and_in_a_volatile_one_does_not() {
    for (volatility, found) in [("stable", vec![2]), ("volatile", vec![1, 2])] {
        let (mut stage, slow, quick, wrong) = cast().await;
        wrong
            .run(&format!(
                "create function safe() returns setof bigint language plpgsql {volatility} as $$
                 declare seen bigint := (select max(position) from highwater.event);
                 begin
                     while ({HOLDERS}) > 0 loop
                         perform pg_sleep(0.001);
                     end loop;
                     return query select position from highwater.event
                                  where position <= seen order by position;
                 end $$"
            ))
            .await;
        gap(&mut stage, &slow, &quick).await;
        let pid = wrong.number("select pg_backend_pid()").await;
        let reading = tokio::spawn(async move { wrong.numbers("select * from safe()").await });
        let waits = format!(
            "select count(*) from pg_stat_activity where pid = {pid} and wait_event = 'PgSleep'"
        );
        eventually("the function waits", LIMIT, async || {
            quick.number(&waits).await == 1
        })
        .await;
        slow.run("commit").await;
        assert_eq!(reading.await.unwrap(), found, "{volatility}");
        the_follower_lost_nothing(stage, 2).await;
    }
}
