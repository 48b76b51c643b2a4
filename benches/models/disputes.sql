/* highwater
events = ["OrderDisputed", "DisputeSettled"]
*/

-- The disputes about each order; one event in 1,000 is about one.

-- highwater: up
create table disputes (
    stream  text primary key,
    opened  bigint not null,
    settled bigint not null,
    amount  bigint not null
);

-- highwater: apply
insert into disputes (stream, opened, settled, amount)
select
    stream,
    count(*) filter (where type = 'OrderDisputed'),
    count(*) filter (where type = 'DisputeSettled'),
    sum((data ->> 'amount')::bigint)
from batch
group by stream
on conflict (stream) do update set
    opened = disputes.opened + excluded.opened,
    settled = disputes.settled + excluded.settled,
    amount = disputes.amount + excluded.amount;
