-- Purpose: locks the checkpoints of the partitions that the selected keys belong to: a batch in
-- flight ends first, the next one waits.
-- Parameters: $1 projection; $2 the selection: all, key, event or fingerprint; $3 its value.
-- Must hold: the projection's row is locked, so that these rows stay the live ones. Locked in the
-- order of partitions; all of them where a batch in flight may add selected dead letters.
select c.partition
  from highwater.checkpoint c
  join highwater.projection p on p.name = c.projection and p.generation = c.generation
 where p.name = $1
   and case $2 when 'key' then c.partition = highwater.partition_of($3, c.partitions)
               when 'event' then c.partition in (
                    select highwater.partition_of(d.key, c.partitions)
                      from highwater.dead_letter d
                     where d.projection = c.projection and d.generation = c.generation
                       and d.id::text = $3)
               else true end
 order by c.partition
   for update of c
