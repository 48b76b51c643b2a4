//! Gaps of our own table: what holds the mark, what does not, and who it is.

use highwater::internal::source::table::EventTable;
use highwater::testing::TestDatabase;

use super::stage::{OWN, Session, Stage, by_sequence, table_sql};

const DRAW: &str = "select nextval('highwater.event_position_seq')";

fn insert_drawn(position: i64) -> String {
    format!(
        "insert into highwater.event (position, stream, version, type, data) overriding system value
         values ({position}, gen_random_uuid()::text, 1, 'T', '{{}}')"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_gap_the_mark_follows_and_no_lock_is_read() {
    let mut stage = Stage::new().await;
    let [writer, open] = stage.sessions().await;
    // A look would refuse this; a mark that follows without a hole needs none.
    writer
        .run("alter sequence highwater.event_position_seq cache 2")
        .await;
    for position in 1..=3 {
        assert_eq!(writer.append().await, position);
        let step = stage.step().await;
        assert_eq!((step.mark.get(), step.head.get()), (position, position));
        assert!(step.gap.is_none() && step.again.is_none(), "{step:?}");
    }
    // The other session's numbers begin beyond the ones that this one keeps in its cache.
    open.append().await;
    assert!(stage.fails().await.to_string().contains("CACHE 2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_appender_holds_the_mark_until_it_commits_then_both_flow_in_order() {
    let mut stage = Stage::new().await;
    let [slow, quick] = stage.sessions().await;
    slow.run("begin").await;
    slow.append().await;
    quick.append().await;
    stage.is_held_at(0).await;
    assert!(stage.delivered().is_empty());
    slow.run("commit").await;
    stage.reaches(2).await;
    assert_eq!(stage.delivered(), [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_was_rolled_back_is_passed() {
    let mut stage = Stage::new().await;
    let [slow, quick] = stage.sessions().await;
    slow.run("begin").await;
    slow.append().await;
    quick.append().await;
    stage.is_held_at(0).await;
    slow.run("rollback").await;
    stage.reaches(2).await;
    assert_eq!(stage.delivered(), [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_savepoint_that_was_rolled_back_holds_the_mark_until_its_transaction_ends() {
    let mut stage = Stage::new().await;
    let [slow, quick] = stage.sessions().await;
    slow.run("begin; savepoint s").await;
    slow.append().await;
    slow.run("rollback to s").await;
    quick.append().await;
    stage.is_held_at(0).await;
    slow.run("commit").await;
    stage.reaches(2).await;
    assert_eq!(stage.delivered(), [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_drawn_long_before_its_insert_holds_the_mark() {
    let mut stage = Stage::new().await;
    let [slow, quick] = stage.sessions().await;
    slow.run("begin").await;
    let early = slow.number(DRAW).await;
    quick.append().await;
    stage.is_held_at(0).await;
    slow.run(&insert_drawn(early)).await;
    slow.run("commit").await;
    stage.reaches(2).await;
    assert_eq!(stage.delivered(), [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_drawn_in_a_savepoint_that_was_rolled_back_can_still_be_used() {
    let mut stage = Stage::new().await;
    let [slow, quick] = stage.sessions().await;
    slow.run("begin; savepoint s").await;
    let early = slow.number(DRAW).await;
    slow.run("rollback to s").await;
    quick.append().await;
    stage.is_held_at(0).await;
    slow.run(&insert_drawn(early)).await;
    slow.run("commit").await;
    stage.reaches(2).await;
    assert_eq!(stage.delivered(), [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_function_that_draws_first_and_inserts_later_holds_the_mark() {
    let mut stage = Stage::new().await;
    let [slow, quick, door] = stage.sessions().await;
    slow.run(
        "create function draw_first() returns void language plpgsql as $$
         declare early bigint := nextval('highwater.event_position_seq');
         begin
             perform pg_advisory_xact_lock(1);
             insert into highwater.event (position, stream, version, type, data)
             overriding system value values (early, 's', 1, 'T', '{}');
         end $$",
    )
    .await;
    door.run("select pg_advisory_lock(1)").await;
    let drawing = tokio::spawn(async move { slow.run("select draw_first()").await });
    let drawn = "select coalesce(pg_sequence_last_value('highwater.event_position_seq'), 0)";
    while door.number(drawn).await == 0 {}
    quick.append().await;
    stage.is_held_at(0).await;
    door.run("select pg_advisory_unlock(1)").await;
    drawing.await.unwrap();
    stage.reaches(2).await;
    assert_eq!(stage.delivered(), [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_insert_straight_into_a_partition_or_a_child_holds_the_mark() {
    let partitioned = format!(
        "{} partition by range (position);
         create table leaf partition of ev for values from (1) to (1000000)",
        table_sql("ev", "bigint generated always as identity")
    );
    let inherited = format!(
        "{}; create table leaf () inherits (ev)",
        table_sql("ev", "bigserial")
    );
    // A partition has no identity of its own before PostgreSQL 17, so a writer draws by hand.
    let drawn =
        "insert into leaf (position) overriding system value values (nextval('ev_position_seq'))";
    for sql in [partitioned, inherited] {
        let mut stage = Stage::with(&sql, by_sequence("ev")).await;
        let [slow, quick] = stage.sessions().await;
        slow.run("begin").await;
        slow.run(drawn).await;
        quick.append().await;
        stage.is_held_at(0).await;
        slow.run("commit").await;
        stage.reaches(2).await;
        assert_eq!(stage.delivered(), [1, 2]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_made_filled_and_attached_in_one_transaction_holds_the_mark() {
    let sql = format!(
        "{} partition by range (position);
         create table high partition of ev for values from (2) to (1000000)",
        table_sql(
            "ev",
            "bigint not null default nextval('numbers') primary key"
        )
    );
    let sql = format!("create sequence numbers; {sql}");
    let mut stage = Stage::with(&sql, by_sequence("ev")).await;
    let [slow, quick] = stage.sessions().await;
    slow.run("begin; create table low (like ev including all)")
        .await;
    slow.append_to("low").await;
    quick.append().await;
    stage.is_held_at(0).await;
    slow.run("alter table ev attach partition low for values from (1) to (2)")
        .await;
    stage.is_held_at(0).await;
    slow.run("commit").await;
    stage.reaches(2).await;
    assert_eq!(stage.delivered(), [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_do_not_append_do_not_hold_the_mark() {
    let mut stage = Stage::new().await;
    let [writer, loser] = stage.sessions().await;
    writer
        .run("create table notes (t text); insert into notes values ('old')")
        .await;
    writer.append().await;
    stage.reaches(1).await;
    let strangers: [Session; 9] = stage.sessions().await;
    let doing = [
        "begin isolation level repeatable read; select count(*) from highwater.event",
        "begin; select pg_advisory_xact_lock(1)",
        "begin; delete from highwater.event where position = 1",
        "begin; explain insert into highwater.event (stream, version, type, data) \
         values ('s', 1, 'T', '{}')",
        "begin; lock table highwater.event in row exclusive mode",
        "begin; select * from notes for key share",
        "begin; insert into notes values ('new'); savepoint s; insert into notes values ('newer')",
        "begin; set transaction isolation level serializable; select * from notes",
        "begin; insert into notes values ('prepared')",
    ];
    for (stranger, sql) in strangers.iter().zip(doing) {
        stranger.run(sql).await;
    }
    let gid = writer.gid("stranger").await;
    strangers[8]
        .run(&format!("prepare transaction '{gid}'"))
        .await;
    // All databases of this server that have our schema are copies: their sequences have one OID.
    let elsewhere = TestDatabase::new().await;
    let elsewhere = Session::open(elsewhere.url(), OWN).await;
    elsewhere.run("begin").await;
    elsewhere.append().await;

    for last in [3, 5, 7] {
        loser.run("begin").await;
        loser.append().await;
        loser.run("rollback").await;
        assert_eq!(writer.append().await, last);
        stage.reaches_unheld(last).await;
    }
    assert_eq!(stage.delivered(), [1, 3, 5, 7]);
    writer.run(&format!("rollback prepared '{gid}'")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_burnt_by_on_conflict_are_passed() {
    let mut stage = Stage::new().await;
    let writer = stage.session().await;
    let sql = "insert into highwater.event (stream, version, type, data)
               values ('s', 1, 'T', '{}') on conflict do nothing";
    for _ in 0..4 {
        writer.run(sql).await;
    }
    assert_eq!(writer.append().await, 5);
    stage.reaches_unheld(5).await;
    assert_eq!(stage.delivered(), [1, 5]);
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_and_chain_ends_what_held_the_mark() {
    let mut stage = Stage::new().await;
    let [slow, quick] = stage.sessions().await;
    slow.run("begin").await;
    slow.append().await;
    quick.append().await;
    stage.is_held_at(0).await;
    slow.run("commit and chain").await;
    stage.reaches(2).await;
    // The chained transaction is another one, and holds what it draws.
    slow.append().await;
    quick.append().await;
    stage.is_held_at(2).await;
    slow.run("rollback and chain").await;
    stage.reaches(4).await;
    assert_eq!(stage.delivered(), [1, 2, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_inside_a_stream_is_never_turned_round() {
    let mut stage = Stage::new().await;
    let [first, second, open] = stage.sessions().await;
    // The one who appends later has the lower transaction ID, and a gap is open meanwhile.
    second.run("begin; select pg_current_xact_id()").await;
    open.run("begin").await;
    open.append().await;
    let append = |version: i64| {
        format!(
            "insert into highwater.event (stream, version, type, data) values ('s', {version}, 'T', '{{}}')"
        )
    };
    first.run(&append(1)).await;
    second.run(&append(2)).await;
    stage.is_held_at(0).await;
    second.run("commit").await;
    open.run("rollback").await;
    stage.reaches(3).await;
    assert_eq!(stage.delivered(), [2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_who_come_later_do_not_prolong_a_wait() {
    let mut stage = Stage::new().await;
    let [slow, next, quick] = stage.sessions().await;
    slow.run("begin").await;
    slow.append().await;
    quick.append().await;
    stage.is_held_at(0).await;
    next.run("begin").await;
    next.append().await;
    quick.append().await;
    slow.run("commit").await;
    stage.reaches(2).await;
    stage.is_held_at(2).await;
    next.run("commit").await;
    stage.reaches(4).await;
    assert_eq!(stage.delivered(), [1, 2, 3, 4]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_gap_says_who_holds_it() {
    let mut stage = Stage::new().await;
    let [slow, quick] = stage.sessions().await;
    slow.run("set application_name = 'till 7'; begin").await;
    slow.append().await;
    slow.run("select 'counting the money'").await;
    quick.append().await;
    let names = stage.is_held_at(0).await;
    let holders = stage.explained(&names).await;
    let [holder] = holders.as_slice() else {
        panic!("{holders:?}")
    };
    let pid = slow.number("select pg_backend_pid()").await;
    assert_eq!(holder.pid.map(i64::from), Some(pid));
    assert_eq!(holder.application.as_deref(), Some("till 7"));
    let user = slow.text("select current_user::text").await;
    assert_eq!(holder.user, Some(user));
    let query = holder.query.as_deref().unwrap();
    assert!(query.contains("counting the money"), "{query}");
    assert!(holder.since.is_some() && holder.prepared.is_none());
}

/// Among many writers it is most likely a commit that is on its way.
#[tokio::test(flavor = "multi_thread")]
async fn the_step_that_passes_many_leaves_the_snapshot_of_a_new_gap_to_the_next_one() {
    let mut stage = Stage::new().await;
    let [slow, quick] = stage.sessions().await;
    for _ in 0..16 {
        quick.append().await;
    }
    slow.run("begin").await;
    slow.append().await;
    quick.append().await;
    let step = stage.step().await;
    assert_eq!(step.passed.width(), 16);
    assert_eq!(step.gap.unwrap().blocked_by, Vec::<String>::new());
    let step = stage.step().await;
    assert_eq!(step.gap.unwrap().blocked_by.len(), 1);
    slow.run("commit").await;
    stage.reaches(18).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_held_gap_says_which_prepared_transaction_holds_it() {
    let mut stage = Stage::new().await;
    let [slow, quick] = stage.sessions().await;
    let gid = slow.gid("order 7").await;
    // Each savepoint that writes has a transaction ID of its own; the name is that of the top one.
    slow.run("begin; create table notes (n int)").await;
    for n in 0..20 {
        slow.run(&format!("savepoint s{n}; insert into notes values ({n})"))
            .await;
    }
    slow.append().await;
    slow.run(&format!("prepare transaction '{gid}'")).await;
    quick.append().await;
    let names = stage.is_held_at(0).await;
    let holders = stage.explained(&names).await;
    let [holder] = holders.as_slice() else {
        panic!("{holders:?}")
    };
    assert_eq!(holder.prepared.as_deref(), Some(gid.as_str()));
    assert!(holder.pid.is_none() && holder.user.is_some() && holder.since.is_some());
    quick.run(&format!("commit prepared '{gid}'")).await;
    stage.reaches(2).await;
    stage.delivered_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_rows_beyond_a_held_gap_than_one_read_returns_do_not_make_it_spin() {
    let mut stage = Stage::new().await;
    let [slow, quick] = stage.sessions().await;
    slow.run("begin").await;
    slow.append().await;
    quick
        .run(
            "insert into highwater.event (stream, version, type, data)
             select 's', i, 'T', '{}' from generate_series(1, 10050) i",
        )
        .await;
    stage.is_held_at(0).await;
    let step = stage.step().await;
    assert!(step.again.unwrap().as_millis() >= 2, "{step:?}");
    slow.run("commit").await;
    stage.reaches(10_051).await;
    assert_eq!(stage.delivered().len(), 10_051);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_connection_voids_the_follower_and_a_new_one_begins_at_the_floor() {
    let mut stage = Stage::over(TestDatabase::new().await, EventTable::own()).await;
    let [slow, quick] = stage.sessions().await;
    quick.append().await;
    stage.reaches(1).await;
    slow.run("begin").await;
    slow.append().await;
    quick.append().await;
    stage.is_held_at(1).await;
    quick
        .run(
            "select pg_terminate_backend(pid, 10000) from pg_stat_activity
              where application_name like 'highwater%' and datname = current_database()",
        )
        .await;
    let error = stage.fails().await;
    assert_eq!(error.kind(), highwater::ErrorKind::ConnectionLost);
    assert!(stage.try_step().await.is_err(), "it stays void");
    stage.follow_again(1).await;
    stage.is_held_at(1).await;
    slow.run("commit").await;
    stage.reaches(3).await;
    assert_eq!(stage.delivered(), [1, 2, 3]);
}
