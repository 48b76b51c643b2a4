-- The parts of the views "batch" in the schemas of projections.

-- The partition that a key belongs to; the key null belongs to the first. PostgreSQL's own hash
-- partitioning relies on this hash staying as it is, and so do the checkpoints.
create function highwater.partition_of(key text, partitions integer) returns integer
language sql immutable parallel safe
return coalesce(((hashtextextended(key collate "C", 0) & 9223372036854775807) % partitions)::integer, 0);

-- The bounds of the current batch. Outside a batch they are null and the views are empty. During the
-- retry of a dead letter the views show that one only, not the log: the event may have been removed
-- since, or have a type that is no longer wanted.
create function highwater.batch_after() returns bigint
language sql stable parallel safe
return case when (highwater.current_batch()).dead_letter is null then (highwater.current_batch()).after end;

create function highwater.batch_through() returns bigint
language sql stable parallel safe
return (highwater.current_batch()).through;

-- Whether the batch has all keys. Then in_batch is not called for each event.
create function highwater.batch_is_whole() returns boolean
language sql stable parallel safe
return coalesce((highwater.current_batch()).partitions <= 1 and not (highwater.current_batch()).parks, true);

-- Whether a key belongs to the current batch: it is in its partition and not parked.
create function highwater.in_batch(key text) returns boolean
language sql stable parallel safe
return highwater.partition_of(key, (highwater.current_batch()).partitions) = (highwater.current_batch()).partition
   and (not (highwater.current_batch()).parks
        or not exists (
            select from highwater.dead_letter d
             where d.projection = (highwater.current_batch()).projection
               and d.generation = (highwater.current_batch()).generation
               and d.key is not distinct from in_batch.key));

-- Separate, so that a role that reads the view needs no right on the dead letters.
create function highwater.batch_dead_letter() returns setof highwater.dead_letter
language plpgsql stable parallel safe rows 1 set search_path = pg_catalog, pg_temp as $$
declare
    batch highwater.batch := highwater.current_batch();
begin
    if batch.dead_letter is null then
        return;
    end if;
    return query
    select d.* from highwater.dead_letter d
     where d.projection = batch.projection and d.generation = batch.generation
       and d.position = batch.dead_letter;
end $$;

-- A role that reads the view "batch" needs the right to read the events: anybody can set the bounds,
-- and a grant on all tables of the schema would otherwise show the whole log. Call it after each
-- "create or replace", which removes the setting. PostgreSQL 14 does not have it.
create function highwater.restrict_view(schema text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if current_setting('server_version_num')::integer >= 150000 then
        execute format('alter view %I.batch set (security_invoker = true)', schema);
    end if;
end $$;
comment on function highwater.restrict_view(text) is
    'Internal: makes the view "batch" use its reader''s rights.';
