-- Purpose: reads what an instance needs to share the partitions: the living instances with what
-- they can run, in the order in which they joined, and the live checkpoints of every projection.
-- Parameters: $1 the asking instance. `instances`: highwater.instance, or its next state.
-- Must hold: the database's clock decides who is alive and what came first.
with me as (
    select i.started_at from /*instances:*/ highwater.instance /*:instances*/ i where i.id = $1
)
select coalesce((select jsonb_agg(jsonb_build_object(
               'id', i.id, 'projections', i.projections,
               'lease', extract(epoch from i.seen_at + i.lease - clock_timestamp())::float8)
               order by i.joined_at, i.id)
          from /*instances:*/ highwater.instance /*:instances*/ i
         where i.seen_at + i.lease > clock_timestamp()), '[]') as living,
       coalesce((select jsonb_agg(jsonb_build_object(
               'name', p.name, 'generation', p.generation, 'hash', g.hash,
               'partitions', p.partitions, 'paused', p.paused_at is not null,
               'checkpoints', (
                   select coalesce(jsonb_agg(jsonb_build_object(
                              'partition', c.partition, 'partitions', c.partitions,
                              'partitioning', c.partitioning,
                              'position', c.position, 'drain_at', c.drain_at,
                              'owner', (select i.id from /*instances:*/ highwater.instance /*:instances*/ i
                                         where i.id = c.owner
                                           and i.seen_at + i.lease > clock_timestamp()),
                              'stopped', coalesce(c.stopped_at >= (select started_at from me), false),
                              'stopped_before', coalesce(c.stopped_at < (select started_at from me), false),
                              'retries', exists (
                                  select from highwater.dead_letter d
                                   where d.projection = c.projection
                                     and d.generation = c.generation
                                     and d.retry_requested_at is not null
                                     and highwater.partition_of(d.key, c.partitions) = c.partition),
                              'error', c.last_error) order by c.partition), '[]')
                     from highwater.checkpoint c
                    where c.projection = p.name and c.generation = p.generation))
               order by p.name)
          from highwater.projection p
          join highwater.generation g on g.projection = p.name and g.number = p.generation),
           '[]') as projections
