-- The last state of each order.

-- highwater: up
create table last_state (
    stream        text primary key,
    status        text not null,
    last_position bigint not null
);

-- highwater: apply
insert into last_state (stream, status, last_position)
select stream, (array_agg(data ->> 'status' order by position desc))[1], max(position)
from batch
group by stream
on conflict (stream) do update set
    status = excluded.status,
    last_position = excluded.last_position;
