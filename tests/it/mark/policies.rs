//! The other gap policies: what each is good for, and what it cannot see.

use highwater::internal::source::table::{EventTable, GapPolicy};
use highwater::testing::TestDatabase;

use super::stage::{OWN, Session, Stage, table, table_sql};

fn inherited() -> String {
    format!(
        "{}; create table child () inherits (ev)",
        table_sql("ev", "bigserial primary key")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn by_table_an_insert_into_the_table_a_partition_or_a_child_holds_the_mark() {
    let partitioned = format!(
        "create sequence ev_position_seq; {} partition by range (position);
         create table child partition of ev for values from (1) to (1000000)",
        table_sql("ev", "bigint not null default nextval('ev_position_seq')")
    );
    for sql in [inherited(), partitioned] {
        let mut stage = Stage::with(&sql, table("ev", GapPolicy::Table)).await;
        let [slow, quick] = stage.sessions().await;
        for (into, mark) in [("ev", 0), ("child", 2)] {
            slow.run("begin").await;
            slow.append_to(into).await;
            quick.append().await;
            stage.is_held_at(mark).await;
            slow.run("commit").await;
            stage.reaches(mark + 2).await;
        }
        let gid = slow.gid("table").await;
        slow.run("begin").await;
        slow.append_to("child").await;
        quick.append().await;
        stage.is_held_at(4).await;
        slow.run(&format!("prepare transaction '{gid}'")).await;
        stage.is_held_at(4).await;
        slow.run(&format!("commit prepared '{gid}'")).await;
        stage.reaches(6).await;
        assert_eq!(stage.delivered(), [1, 2, 3, 4, 5, 6]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn by_table_a_number_drawn_before_its_insert_is_lost_and_by_sequence_it_is_not() {
    let database = TestDatabase::new().await;
    let slow = Session::open(database.url(), "ev").await;
    let quick = Session::open(database.url(), "ev").await;
    slow.run(&inherited()).await;
    let by = |gap| Stage::at(database.url(), table("ev", gap), 0);
    let mut weak = by(GapPolicy::Table).await.unwrap();
    let mut exact = by(GapPolicy::Sequence { named: None }).await.unwrap();
    let mut wide = by(GapPolicy::Transactions).await.unwrap();
    slow.run("begin; select nextval('ev_position_seq')").await;
    quick.append().await;
    weak.reaches_unheld(2).await;
    exact.is_held_at(0).await;
    wide.is_held_at(0).await;
    slow.run("insert into ev (position) values (1); commit")
        .await;
    exact.reaches(2).await;
    wide.reaches(2).await;
    assert_eq!(
        weak.delivered(),
        [2],
        "the reason why it is not the default"
    );
    assert_eq!(exact.delivered(), [1, 2]);
    assert_eq!(wide.delivered(), [1, 2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn by_transactions_every_open_transaction_of_the_database_holds_the_mark() {
    let sql = table_sql("ev", "bigserial primary key");
    let mut stage = Stage::with(&sql, table("ev", GapPolicy::Transactions)).await;
    let [slow, quick, reader] = stage.sessions().await;
    quick.run("create table notes (t text)").await;
    let gid = slow.gid("transactions").await;
    // Any transaction is waited for, whatever it does.
    reader.run("begin; select 1").await;
    slow.run("begin").await;
    slow.append().await;
    slow.run("rollback").await;
    quick.append().await;
    stage.is_held_at(0).await;
    reader.run("commit").await;
    stage.reaches(2).await;
    // A prepared one too, also one that was prepared while it was waited for.
    slow.run("begin").await;
    slow.append().await;
    quick.append().await;
    stage.is_held_at(2).await;
    slow.run(&format!("prepare transaction '{gid}'")).await;
    stage.is_held_at(2).await;
    slow.run(&format!("commit prepared '{gid}'")).await;
    stage.reaches(4).await;
    // Not one of another database.
    let elsewhere = TestDatabase::new().await;
    let elsewhere = Session::open(elsewhere.url(), OWN).await;
    elsewhere.run("begin").await;
    elsewhere.append().await;
    slow.run("begin").await;
    slow.append().await;
    slow.run("rollback").await;
    quick.append().await;
    stage.reaches(6).await;
    assert_eq!(stage.delivered(), [2, 3, 4, 6]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_counter_row_makes_positions_dense_and_nothing_is_lost() {
    let sql = format!(
        "{}; create table counter (n bigint not null); insert into counter values (0);
         create function draw() returns bigint language sql as
             $$ update counter set n = n + 1 returning n $$;
         alter table ev alter position set default draw()",
        table_sql("ev", "bigint primary key")
    );
    let mut stage = Stage::with(&sql, table("ev", GapPolicy::Dense)).await;
    let [first, second] = stage.sessions().await;
    first.run("begin").await;
    first.append().await;
    let waiting = tokio::spawn(async move {
        let position = second.append().await;
        (second, position)
    });
    assert_eq!(stage.step().await.mark.get(), 0);
    first.run("commit").await;
    let (second, position) = waiting.await.unwrap();
    assert_eq!(position, 2);
    stage.reaches(2).await;
    first.run("begin").await;
    first.append().await;
    first.run("rollback").await;
    assert_eq!(second.append().await, 3, "no number is burnt");
    stage.reaches(3).await;
    assert_eq!(stage.delivered(), [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_that_is_said_to_be_dense_loses_what_commits_late() {
    let own = EventTable {
        gap: GapPolicy::Dense,
        ..EventTable::own()
    };
    let mut stage = Stage::over(TestDatabase::new().await, own).await;
    let [slow, quick] = stage.sessions().await;
    slow.run("begin").await;
    slow.append().await;
    quick.append().await;
    stage.reaches(2).await;
    slow.run("commit").await;
    stage.step().await;
    assert_eq!(stage.delivered(), [2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sequence_that_a_trigger_draws_from_is_named() {
    let sql = format!(
        "{}; create sequence numbers;
         create function number() returns trigger language plpgsql as $$
         begin new.position := nextval('numbers'); return new; end $$;
         create trigger number before insert on ev for each row execute function number()",
        table_sql("ev", "bigint primary key")
    );
    let named = |name: &str| GapPolicy::Sequence {
        named: Some(name.to_owned()),
    };
    let mut stage = Stage::with(&sql, table("ev", named("numbers"))).await;
    let [slow, quick] = stage.sessions().await;
    slow.run("begin").await;
    slow.append().await;
    quick.append().await;
    stage.is_held_at(0).await;
    slow.run("commit").await;
    stage.reaches(2).await;
    assert_eq!(stage.delivered(), [1, 2]);

    // A name that leads nowhere is not replaced by a sequence that the catalogue shows.
    quick
        .run("create sequence other owned by ev.position; alter table ev alter position set default nextval('other')")
        .await;
    let wrong = Stage::at(stage.url(), table("ev", named("numbesr")), 2).await;
    let error = wrong.err().expect("a sequence that is not there");
    assert_eq!(error.kind(), highwater::ErrorKind::Precondition);
    assert!(error.to_string().contains("numbesr"), "{error}");
}
