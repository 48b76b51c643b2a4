-- Purpose: the read model of a whole log in one statement: the least that the database must do
insert into orders.order_summary (stream, events, items, cents, status, last)
select
    stream,
    count(*),
    coalesce(sum((data->>'quantity')::int) filter (where type = 'ItemAdded'), 0),
    coalesce(sum((data->>'cents')::bigint) filter (where type = 'ItemAdded'), 0),
    case when bool_or(type = 'OrderShipped') then 'shipped' else 'open' end,
    max((data->>'n')::int)
from event
group by stream
