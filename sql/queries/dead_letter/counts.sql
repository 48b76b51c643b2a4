-- Purpose: how many keys of each projection are parked, and how many dead letters there are.
-- Parameters: none.
select p.name, count(distinct d.key) + max((d.key is null)::integer), count(*)
  from highwater.projection p
  join highwater.dead_letter d on d.projection = p.name and d.generation = p.generation
 group by p.name
