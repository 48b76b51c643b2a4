-- Purpose: what the ledgers of two partitions count of a range: as count_each.sql, but without a hash of
-- the partitions, which costs a sixth of it; the second one has what the first one has not.
-- {events}: the events; {after}, {through}: the range; {types}: which events are wanted; {number}: the
-- partition of one that is. What is not wanted is not asked for its key: it may have none.
-- Must hold: in a transaction whose snapshot is taken before either partition applies the range.
with counted as (
    select count(*) as scanned,
           count(*) filter (where {types}) as wanted,
           count(*) filter (where case when {types} then ({number}) = 0 end) as first
    from {events} e
    where e.position > {after} and e.position <= {through}
)
select 0 as partition, first as events from counted
union all select 1, wanted - first from counted
union all select null, scanned - wanted from counted
