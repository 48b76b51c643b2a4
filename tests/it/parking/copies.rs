//! A dead letter is retried as it was stored, whatever happened to the log since.

use highwater::internal::engine::operate::accept;

use super::*;

/// The ways in which a statement reads the view `batch`, not what is put in front of it.
const WAYS: [&str; 5] = [
    "select by_function();",
    "do $$ begin insert into applied select position, type from batch order by position; end $$;",
    "create temp table taken on commit drop as select * from batch;
     insert into applied select position, type from taken order by position;",
    "with batch as (select * from applied.batch)
     insert into applied select position, type from batch order by position;",
    "insert into applied select position, type from batch where position in (select seen())
     order by position;",
];

fn by_view(events: &str, way: &str) -> Arc<dyn DynProjection> {
    let text = format!(
        "/* highwater
on_error = \"park\"
events = [{events}]
*/
-- highwater: up
create table applied (position bigint primary key, type text not null,
                      n bigint generated always as identity);
create function check_poison() returns trigger language plpgsql as $$
begin
    perform 1 / (new.position not in (select p.position from public.poison p))::int;
    return new;
end $$;
create trigger check_poison before insert on applied for each row execute function check_poison();
create function by_function() returns void language plpgsql as $$
begin insert into applied select position, type from batch order by position; end $$;
create function seen() returns setof bigint language plpgsql as $$
begin return query select b.position from batch b; end $$;
-- highwater: apply
{way}
"
    );
    sql_projection("applied", &text)
}

/// Events 1 to 8 of two streams, of which `a` is parked from event 3 on.
async fn parked(events: &str, way: &str) -> (TestDatabase, Client) {
    let (database, client) = log(0, &[3]).await;
    for version in 1..=4 {
        append_rows(&client, "a", version..=version).await;
        append_rows(&client, "b", version..=version).await;
    }
    caught_up(&run(&database, by_view(events, way)).await);
    assert_eq!(dead_letters_at(&client).await, [3, 5, 7], "{way}");
    poisoned(&client, &[]).await;
    (database, client)
}

async fn all_are_applied(client: &Client, way: &str) {
    let sql = "select position from applied.applied order by n";
    let in_order = positions(client, sql).await;
    assert_eq!(in_order, [1, 2, 4, 6, 8, 3, 5, 7], "{way}");
    assert_eq!(dead_letters_at(client).await, [0_i64; 0], "{way}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_applied_though_its_event_was_removed_from_the_log() {
    for way in WAYS {
        let (database, client) = parked("\"T\"", way).await;
        let sql = "delete from highwater.event where position <= 5";
        client.batch_execute(sql).await.unwrap();
        retry(&database, Selection::All).await;
        caught_up(&run(&database, by_view("\"T\"", way)).await);
        all_are_applied(&client, way).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_is_applied_though_its_type_is_no_longer_wanted() {
    for way in WAYS {
        let (database, client) = parked("\"T\", \"U\"", way).await;
        let narrowed = || by_view("\"U\"", way);
        let is_accepted = accept(&database.pooled(), &*narrowed(), &*database.source())
            .await
            .unwrap();
        assert!(is_accepted, "{way}");
        retry(&database, Selection::All).await;
        caught_up(&run(&database, narrowed()).await);
        all_are_applied(&client, way).await;
    }
}
