-- Purpose: locks the checkpoints of the partitions that the keys in question belong to: a batch in
-- flight ends first, the next one waits.
-- Parameters: $1 projection; $2 which: all, key, event or fingerprint; $3 the one.
select c.partition
  from highwater.checkpoint c
  join highwater.projection p on p.name = c.projection and p.generation = c.generation
 where p.name = $1
   and c.partition in (
        select highwater.partition_of(d.key, c.partitions)
          from highwater.dead_letter d
         where d.projection = c.projection and d.generation = c.generation
           and ($2 = 'all' or case $2 when 'key' then d.key is not distinct from $3
                                      when 'event' then d.id::text = $3
                                      when 'fingerprint' then d.fingerprint = $3 end))
 order by c.partition
   for update of c
