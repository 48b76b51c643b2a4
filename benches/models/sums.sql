-- What each order comes to.

-- highwater: up
create table sums (
    stream        text primary key,
    events        bigint not null,
    amount        bigint not null,
    last_position bigint not null
);

-- highwater: apply
insert into sums (stream, events, amount, last_position)
select stream, count(*), sum((data ->> 'amount')::bigint), max(position)
from batch
group by stream
on conflict (stream) do update set
    events = sums.events + excluded.events,
    amount = sums.amount + excluded.amount,
    last_position = excluded.last_position;
