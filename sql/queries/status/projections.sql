-- Purpose: every projection with the checkpoints of its live and its next generation, their owners,
-- and how much of the live one is parked.
-- Parameters: none.
-- Must hold: the owner is alive by the database's clock, never by ours; no event is read.
select p.name, p.generation, g.hash, g.source, p.next_generation, n.hash as next_hash,
       p.partitions as wanted, p.paused_at,
       c.generation as of_generation, c.partition, c.position, c.source_identity, c.epoch,
       c.partitions, c.drain_at, c.state, c.rate, c.last_error,
       i.host || ':' || i.pid as owner,
       coalesce(i.seen_at + i.lease > clock_timestamp(), false) as alive,
       i.seen_at, d.parked_keys, d.dead_letters
from highwater.projection p
join highwater.generation g on g.projection = p.name and g.number = p.generation
left join highwater.generation n on n.projection = p.name and n.number = p.next_generation
left join highwater.checkpoint c
       on c.projection = p.name and c.generation in (p.generation, p.next_generation)
left join highwater.instance i on i.id = c.owner
left join lateral (
    select count(distinct d.key) + coalesce(max((d.key is null)::integer), 0) as parked_keys,
           count(*) as dead_letters
      from highwater.dead_letter d
     where d.projection = p.name and d.generation = p.generation
) d on true
order by p.name, c.generation, c.partition
