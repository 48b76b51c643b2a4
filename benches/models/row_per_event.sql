-- One row for each event.

-- highwater: up
create table row_per_event (
    position    bigint primary key,
    stream      text not null,
    type        text not null,
    amount      bigint not null,
    recorded_at timestamptz not null
);

-- highwater: apply
insert into row_per_event (position, stream, type, amount, recorded_at)
select position, stream, type, (data ->> 'amount')::bigint, recorded_at
from batch;
