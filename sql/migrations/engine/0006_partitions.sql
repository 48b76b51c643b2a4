-- Changing the number of partitions.

-- Changes the number of partitions to projection.partitions. The first call sets the position of the
-- change to the highest checkpoint; no partition passes it. Once all partitions have reached it, a call
-- replaces them with the new ones. Returns whether it changed anything.
-- Must hold: all checkpoints are locked, after the projection's row and in the order of partitions,
-- so that no batch is in flight. It waits for batches in flight, or the change would never happen under
-- load: 1 s for each, 5 s for all. After that it releases its locks and does nothing; its caller has
-- other work and calls it again.
create function highwater.repartition(projection text) returns boolean
language plpgsql set lock_timeout = '1s' as $$
declare
    wanted highwater.projection;
    highest highwater.checkpoint;
    behind boolean;
    latest timestamptz := clock_timestamp() + interval '5 s';
begin
    begin
        select p.* into wanted from highwater.projection p
         where p.name = repartition.projection for no key update;
        if not found then return false; end if;
        -- One statement each: it sees what was committed while the previous one waited.
        for n in 0 .. (select coalesce(max(c.partition), -1) from highwater.checkpoint c
                        where c.projection = wanted.name and c.generation = wanted.generation) loop
            if clock_timestamp() > latest then return false; end if;
            perform from highwater.checkpoint c
              where c.projection = wanted.name and c.generation = wanted.generation
                and c.partition = n for update;
        end loop;
    exception when lock_not_available then
        return false;
    end;
    select c.* into highest from highwater.checkpoint c
     where c.projection = wanted.name and c.generation = wanted.generation
     order by c.position desc, c.event_position desc nulls last limit 1;
    if not found then return false; end if;
    if highest.drain_at is null then
        if highest.partitions = wanted.partitions then return false; end if;
        update highwater.checkpoint c set drain_at = highest.position
         where c.projection = wanted.name and c.generation = wanted.generation;
    end if;
    select bool_or(c.position < c.drain_at) into behind from highwater.checkpoint c
     where c.projection = wanted.name and c.generation = wanted.generation;
    if behind then return highest.drain_at is null; end if;
    select max(c.epoch), max(c.parking) into highest.epoch, highest.parking
      from highwater.checkpoint c
     where c.projection = wanted.name and c.generation = wanted.generation;
    delete from highwater.checkpoint c
     where c.projection = wanted.name and c.generation = wanted.generation;
    insert into highwater.checkpoint (projection, generation, partition, source, partitions, partitioning,
        position, event_position, event_id, source_identity, epoch, parking)
    select wanted.name, wanted.generation, n, highest.source, wanted.partitions,
           highest.partitioning + 1, highest.position, highest.event_position, highest.event_id,
           highest.source_identity, highest.epoch + 1, highest.parking + 1
      from generate_series(0, wanted.partitions - 1) n;
    perform highwater.set_positions(wanted.name, wanted.name, wanted.generation);
    return true;
end $$;
comment on function highwater.repartition(text) is
    'Internal: one step of a change of the number of partitions.';
