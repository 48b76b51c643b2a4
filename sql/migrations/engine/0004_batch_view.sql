-- What the views "batch" in the schemas of projections are made of.

-- Which of so many partitions a key belongs to; the key null belongs to the first. PostgreSQL's own
-- hash partitioning relies on this hash staying as it is, and so do the checkpoints.
create function highwater.partition_of(key text, partitions integer) returns integer
language sql immutable parallel safe
return coalesce(((hashtextextended(key collate "C", 0) & 9223372036854775807) % partitions)::integer, 0);

-- The bounds of the batch at hand. Outside of a batch they are null and the views empty. While a dead
-- letter is tried again the views show that one, and nothing of the log: the event may have been removed
-- since, or be of a type that is not wanted any more.
create function highwater.batch_after() returns bigint
language sql stable parallel safe
return case when (highwater.current_batch()).letter is null then (highwater.current_batch()).after end;

create function highwater.batch_through() returns bigint
language sql stable parallel safe
return (highwater.current_batch()).through;

-- Whether the batch has all keys, so that nothing needs to be asked of each event.
create function highwater.batch_is_whole() returns boolean
language sql stable parallel safe
return coalesce((highwater.current_batch()).partitions <= 1 and not (highwater.current_batch()).parks, true);

-- Whether a key is among those of the batch at hand: its partition's own, and not parked.
create function highwater.in_batch(key text) returns boolean
language sql stable parallel safe
return highwater.partition_of(key, (highwater.current_batch()).partitions) = (highwater.current_batch()).partition
   and (not (highwater.current_batch()).parks
        or not exists (
            select from highwater.dead_letter d
             where d.projection = (highwater.current_batch()).projection
               and d.generation = (highwater.current_batch()).generation
               and d.key is not distinct from in_batch.key));

-- A function of its own, so that who reads a batch needs no right on the letters.
create function highwater.batch_letter() returns setof highwater.dead_letter
language plpgsql stable parallel safe rows 1 set search_path = pg_catalog, pg_temp as $$
declare
    batch highwater.batch := highwater.current_batch();
begin
    if batch.letter is null then
        return;
    end if;
    return query
    select d.* from highwater.dead_letter d
     where d.projection = batch.projection and d.generation = batch.generation
       and d.position = batch.letter;
end $$;

-- Who reads the view "batch" needs the right to read the events themselves. Anybody can set the bounds that
-- it reads, and a grant on all tables of the schema would show the whole log. To be called after each create
-- or replace, which takes the setting away. PostgreSQL 14 has none.
create function highwater.restrict_view(schema text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    if current_setting('server_version_num')::integer >= 150000 then
        execute format('alter view %I.batch set (security_invoker = true)', schema);
    end if;
end $$;
comment on function highwater.restrict_view(text) is 'Internal: lets who reads a view "batch" read with his own rights.';
