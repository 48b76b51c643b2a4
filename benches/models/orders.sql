-- Events of a shop from number :from to :to (exclusive) of :events: orders of 20 events each, over 30 days.
-- About 250 bytes an event; two types that are one event in 1,000 together. Always the same.
-- :interleaved: whether the orders take turns, or are written one after the other.
insert into highwater.event (stream, version, type, data, recorded_at)
select
    'order-' || number,
    version,
    case
        when chance = 0 then 'OrderDisputed'
        when chance = 1 then 'DisputeSettled'
        when version = 1 then 'OrderPlaced'
        when version = 18 then 'OrderPaid'
        when version = 19 then 'OrderShipped'
        when version = 20 then 'OrderDelivered'
        else 'ItemAdded'
    end,
    jsonb_build_object(
        'customer', 'customer-' || number % greatest(:events / 100, 1),
        'status', case version when 18 then 'paid' when 19 then 'shipped' when 20 then 'delivered' else 'open' end,
        'amount', i * 7919 % 20000,
        'sku', 'sku-' || i % 977,
        'note', left(md5(i::text) || md5((-i)::text), 60)
    ),
    timestamptz '2026-01-05 00:00Z' + interval '720 hours' * (i / :events::float8)
from generate_series(:from::bigint, :to::bigint - 1) as i
cross join lateral (
    select
        case when :interleaved then i % (:events / 20) else i / 20 end as number,
        case when :interleaved then i / (:events / 20) else i % 20 end + 1 as version,
        hashint8extended(i, 0) & 2047 as chance
) as event
order by i;
