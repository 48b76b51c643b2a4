-- Retrying, deleting and limiting dead letters.

-- The fence for the retry of a dead letter. The checkpoint does not move.
create function highwater.begin_dead_letter(fence highwater.fence, dead_letter bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    moved highwater.checkpoint;
begin
    update highwater.checkpoint c
       set last_error = null, updated_at = clock_timestamp()
     where c.projection = fence.projection
       and c.generation = fence.generation
       and c.partition = fence.partition
       and c.epoch = fence.epoch
       and c.parking = fence.parking
    returning * into moved;
    if not found then
        perform highwater.raise_fenced(fence, dead_letter - 1);
    end if;
    perform set_config('highwater.batch', row(
        moved.projection, moved.generation, moved.partition, moved.partitions,
        dead_letter - 1, dead_letter, dead_letter, false
    )::highwater.batch::text, true);
end $$;
comment on function highwater.begin_dead_letter(highwater.fence, bigint) is
    'Internal: the fence for the retry of a dead letter.';

-- Deletes a dead letter that was applied or is discarded. If it was the last of its key, `parking` of
-- the key's partition rises. The caller holds the lock on that partition's checkpoint.
create function highwater.settle(projection text, generation integer, dead_letter bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    gone highwater.dead_letter;
begin
    delete from highwater.dead_letter d
     where d.projection = settle.projection and d.generation = settle.generation
       and d.position = settle.dead_letter
    returning * into gone;
    if not found then
        raise exception using
            errcode = 'HW101',
            message = format('"%s" no longer has a dead letter at position %s',
                             settle.projection, settle.dead_letter);
    end if;
    -- A key is retried as a whole: the next of its dead letters is requested too.
    update highwater.dead_letter d
       set retry_requested_at = gone.retry_requested_at
     where gone.retry_requested_at is not null and d.retry_requested_at is null
       and d.projection = gone.projection and d.generation = gone.generation
       and d.position = (select min(n.position) from highwater.dead_letter n
                          where n.projection = gone.projection
                            and n.generation = gone.generation
                            and (n.key = gone.key or gone.key is null and n.key is null));
    if not exists (select from highwater.dead_letter d
                    where d.projection = gone.projection and d.generation = gone.generation
                      and (d.key = gone.key or gone.key is null and d.key is null)) then
        update highwater.checkpoint c
           set parking = c.parking + 1
         where c.projection = gone.projection and c.generation = gone.generation
           and c.partition = highwater.partition_of(gone.key, c.partitions);
    end if;
end $$;
comment on function highwater.settle(text, integer, bigint) is
    'Internal: deletes a dead letter that was applied or discarded.';

-- Raises HW103 if more is parked than allowed: the last statement of a transaction that parks events.
create function highwater.check_parked(
    projection text, generation integer, keys_max bigint, dead_letters_max bigint
) returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    keys bigint;
    dead_letters bigint;
begin
    select count(distinct d.key) + coalesce(max((d.key is null)::integer), 0), count(*)
      into keys, dead_letters
      from highwater.dead_letter d
     where d.projection = check_parked.projection and d.generation = check_parked.generation;
    if keys > keys_max then
        raise exception using
            errcode = 'HW103',
            message = pg_catalog.format('more keys of "%s" would be parked than engine.parked_keys_max = %s',
                             check_parked.projection, keys_max);
    end if;
    if dead_letters > dead_letters_max then
        raise exception using
            errcode = 'HW103',
            message = pg_catalog.format('more events of "%s" would be parked than engine.dead_letters_max = %s',
                             check_parked.projection, dead_letters_max);
    end if;
end $$;
comment on function highwater.check_parked(text, integer, bigint, bigint) is 'Internal: raises HW103.';
