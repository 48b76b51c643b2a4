-- Purpose: every ledger, those of partitions that are no more among them, with how many dead letters
-- it must know of.
-- Parameters: $1 the projection, null for all.
-- Must hold: one statement, so that positions, counts and letters belong together.
with ledger as (
    select projection, generation, layout, partition, partitions, counted_from,
           position as counted_to, source_identity,
           scanned, applied, filtered, parked, discarded
      from highwater.checkpoint
    union all
    select projection, generation, layout, partition, partitions, counted_from, counted_to, null,
           scanned, applied, filtered, parked, discarded
      from highwater.ledger
)
select p.name, p.source,
       case l.generation when p.generation then p.hash when p.next_generation then p.next_hash end
           as hash,
       l.generation, l.layout, l.partition, l.partitions, l.counted_from, l.counted_to,
       l.source_identity, l.scanned, l.applied, l.filtered, l.parked, l.discarded,
       (select count(*) from highwater.dead_letter d
         where d.projection = l.projection and d.generation = l.generation
           and d.layout = l.layout and d.partition = l.partition
           and d.position > l.counted_from) as letters
from ledger l
join highwater.projection p on p.name = l.projection
where $1::text is null or p.name = $1
order by p.name, l.generation, l.layout, l.partition
