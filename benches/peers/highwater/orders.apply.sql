
-- highwater: apply
insert into order_summary as o (stream, events, items, cents, status, last)
select
    stream,
    count(*),
    coalesce(sum((data->>'quantity')::int) filter (where type = 'ItemAdded'), 0),
    coalesce(sum((data->>'cents')::bigint) filter (where type = 'ItemAdded'), 0),
    case when bool_or(type = 'OrderShipped') then 'shipped' else 'open' end,
    max((data->>'n')::int)
from batch
group by stream
on conflict (stream) do update set
    events = o.events + excluded.events,
    items = o.items + excluded.items,
    cents = o.cents + excluded.cents,
    status = case when excluded.status = 'shipped' then 'shipped' else o.status end,
    last = excluded.last;
