-- Purpose: applies one event to the read model
-- Parameters: $1 stream, $2 items added, $3 their price, $4 the new status or null, $5 the event's version
insert into orders.order_summary as o (stream, events, items, cents, status, last)
values ($1, 1, $2, $3, coalesce($4::text, 'open'), $5)
on conflict (stream) do update set
    events = o.events + 1,
    items = o.items + excluded.items,
    cents = o.cents + excluded.cents,
    status = coalesce($4::text, o.status),
    last = excluded.last
