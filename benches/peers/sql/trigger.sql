-- Purpose: the same read model, kept by the appending transaction itself
create function apply_event() returns trigger language plpgsql as $$
begin
    insert into orders.order_summary as o (stream, events, items, cents, status, last)
    values (
        new.stream, 1,
        case when new.type = 'ItemAdded' then (new.data->>'quantity')::int else 0 end,
        case when new.type = 'ItemAdded' then (new.data->>'cents')::bigint else 0 end,
        case when new.type = 'OrderShipped' then 'shipped' else 'open' end,
        (new.data->>'n')::int
    )
    on conflict (stream) do update set
        events = o.events + 1,
        items = o.items + excluded.items,
        cents = o.cents + excluded.cents,
        status = case when new.type = 'OrderShipped' then 'shipped' else o.status end,
        last = excluded.last;
    return null;
end;
$$;

create trigger apply_event after insert on event for each row execute function apply_event();
