//! The points between a poison event and the end of its dead letter.

use futures_util::{StreamExt, stream};

use super::{APPEND, Arguments, Case, DONE, Project, RUN, case};
use crate::support::one;

/// Events whose stream and version are in `public.poison` cannot be applied.
const PICKY: &str = "
/* highwater
on_error = \"park\"
*/
-- highwater: up
create table picky (
    applied bigint generated always as identity, stream text not null, version bigint not null);
-- highwater: apply
insert into picky (stream, version)
select stream, version / (not exists (select from public.poison p where p.stream = batch.stream
                                         and p.version = batch.version))::int
  from batch order by position;
";

/// Not commands of the program: the projection is written and one event made poison; it is fixed.
const POISON: Arguments = &["(an event cannot be applied)"];
const MEND: Arguments = &["(it can)"];

const RETRY: Arguments = &["dead-letters", "retry", "picky", "--all"];
/// The poison event itself, whose key has others after it.
const DISCARD: Arguments = &[
    "dead-letters",
    "discard",
    "picky",
    "--event",
    "00000000-0000-0000-0000-0000000003f5",
    "--reason",
    "a test",
];
const POISONED: &str = "(values ('s-13', 21::bigint)) p (stream, version)";

/// Done, or caught up with parked keys.
const RAN: &[i32] = &[0, 3];
/// Done, or there is nothing of the kind any more.
const TRIED: &[i32] = &[0, 1, 2];

pub(super) const CASES: &[Case] = &[
    case("park.inserted", 1, &[APPEND, POISON], RUN),
    case("park.committed", 1, &[APPEND, POISON], RUN),
    case("batch.committed", 30, &[APPEND, POISON], RUN),
    case("retry.requested", 1, &[APPEND, POISON, RUN, MEND], RETRY),
    case(
        "retry.committed",
        1,
        &[APPEND, POISON, RUN, MEND, RETRY],
        RUN,
    ),
    case(
        "retry.committed",
        5,
        &[APPEND, POISON, RUN, MEND, RETRY],
        RUN,
    ),
    case("batch.sent", 1, &[APPEND, POISON, RUN, MEND, RETRY], RUN),
    case("batch.sent", 3, &[APPEND, POISON, RUN, MEND, RETRY], RUN),
    case("retry.refused", 1, &[APPEND, POISON, RUN, RETRY], RUN),
    case("discard.settled", 1, &[APPEND, POISON, RUN], DISCARD),
    case("discard.committed", 1, &[APPEND, POISON, RUN], DISCARD),
];

impl Project {
    /// Whether it was one of the steps that are no commands.
    pub(super) async fn pretended(&self, arguments: &[&str]) -> bool {
        let sql = match arguments {
            a if a == POISON => {
                self.shop.write("projections/picky.sql", PICKY);
                format!("create table public.poison as select * from {POISONED}")
            }
            a if a == MEND => "delete from public.poison".to_owned(),
            _ => return false,
        };
        let client = self.database.client().await;
        client.batch_execute(&sql).await.unwrap();
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_that_dies_around_a_dead_letter_leaves_every_event_applied_or_discarded_once() {
    stream::iter(CASES)
        .for_each_concurrent(3, dies_and_goes_on)
        .await;
}

async fn dies_and_goes_on(case: &Case) {
    let project = Project::new().await;
    for arguments in case.before {
        project.run(arguments, RAN).await;
    }
    project.die(case).await;
    project.run(case.dies, TRIED_OR_RAN).await;
    project.run(RUN, RAN).await;
    let client = project.database.client().await;
    let place = format!("{}@{} of {:?}", case.point, case.pass, case.dies);
    if !case.before.contains(&MEND) {
        let letters: i64 = one(&client, "select count(*) from highwater.dead_letter").await;
        assert!(letters > 0, "{place}: the key is parked");
        project.run(MEND, DONE).await;
    }
    project.run(RETRY, TRIED).await;
    project.run(RUN, DONE).await;
    let given_up = if case.dies == DISCARD {
        POISONED
    } else {
        "(values ('', 0::bigint)) p (stream, version)"
    };
    let exact = format!(
        "select (select array_agg((stream, version)::text order by stream, applied) from picky.picky)
              = (select array_agg((stream, version)::text order by stream, version) from highwater.event e
                  where not exists (select from {given_up}
                                     where p.stream = e.stream and p.version = e.version))"
    );
    assert!(
        one::<bool>(&client, &exact).await,
        "{place}: lost, twice or out of order"
    );
    let discarded: i64 = one(&client, "select count(*) from highwater.discarded").await;
    assert_eq!(discarded, i64::from(case.dies == DISCARD), "{place}");
    project.assert_nothing_is_left(&place).await;
}

const TRIED_OR_RAN: &[i32] = &[0, 1, 2, 3];
