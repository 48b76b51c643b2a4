-- Purpose: stores blocks: what a log held when it was read, or was counted later.
-- Parameters: $1 the source's identity; then a column each, a row a block: $2 after; $3 through;
-- $4 events; $5 digest; $6 whether it was counted later.
-- Must hold: a block grows while it is open, and is never cut short. One that was counted later
-- stays as it is: audit may have compared it already. It waits for no disk: a block that a crash
-- undoes is counted later, and it never outlives the events, which were written before it.
with relaxed as (
    select set_config('synchronous_commit', 'off', true)
)
insert into highwater.block as b (source_identity, after, through, events, digest, counted_later)
select $1::text, n.after, n.through, n.events, n.digest, n.counted_later
  from unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::boolean[])
       n (after, through, events, digest, counted_later), relaxed
on conflict (source_identity, after) do update
   set through = excluded.through, events = excluded.events, digest = excluded.digest,
       recorded_at = clock_timestamp()
 where b.through < excluded.through and not b.counted_later and not excluded.counted_later
