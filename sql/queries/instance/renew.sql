-- Purpose: renews an instance, reports its marks and the states of its runners, returns the runners
-- that have lost their checkpoint (under another epoch, swapped or dropped), and reads the cluster as
-- observe.sql does. Dead instances are deleted after a day.
-- Parameters: $1 instance; $2 host; $3 process id; $4 lease in seconds; $5 marks by source;
-- $6 [{projection, generation, partition, epoch, state, rate}]; $7 the projections it can run.
-- `observed`: observe.sql.
-- Must hold: one statement; it never waits for a batch that holds a checkpoint's row.
with alive as (
    insert into highwater.instance (id, host, pid, lease, marks, projections)
    values ($1, $2, $3, make_interval(secs => $4), $5, $7)
    on conflict (id) do update
        set seen_at = clock_timestamp(), marks = excluded.marks, projections = excluded.projections,
            -- An instance that was given up meanwhile joins again.
            joined_at = case when instance.seen_at + instance.lease > clock_timestamp()
                             then instance.joined_at else clock_timestamp() end
    returning *
), living as (
    select * from alive
    union all
    -- As it was before: this statement does not see what it writes.
    select * from highwater.instance where id <> $1
), forgotten as (
    delete from highwater.instance where id <> $1 and seen_at < clock_timestamp() - interval '1 day'
), mine as (
    select r.* from jsonb_to_recordset($6) as r(projection text, generation integer,
        partition integer, epoch bigint, state text, rate double precision)
), free as (
    select c.projection, c.generation, c.partition, m.state, m.rate
      from highwater.checkpoint c
      join mine m using (projection, generation, partition, epoch)
     -- A released one has a state of its own.
     where c.owner = $1 and (c.state, round(c.rate)) is distinct from (m.state, round(m.rate))
       for update of c skip locked
), reported as (
    update highwater.checkpoint c
       set state = f.state, rate = f.rate
      from free f
     where (c.projection, c.generation, c.partition) = (f.projection, f.generation, f.partition)
)
select seen.living, seen.projections, coalesce((
           select jsonb_agg(jsonb_build_array(m.projection, m.partition))
             from mine m
             left join highwater.checkpoint c using (projection, generation, partition)
            where c.epoch is distinct from m.epoch), '[]')
  from (
/*observed:*/ select null::jsonb as living, null::jsonb as projections /*:observed*/
  ) seen
