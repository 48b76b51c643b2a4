-- The parts of every batch: the opening, the fence, and the check before its commit.

-- The opening of a batch's transaction after its `begin`, in one statement whose plans are kept:
--
--   * row security that would hide rows is an error;
--   * pg_stat_activity says whose batch it is;
--   * the server checks once a second whether its client is still there; only servers on Linux can do
--     this in every version;
--   * unless await_disk, the commit waits for neither disk nor replicas. A crash of the server may then
--     undo the last batches, rows and checkpoint together, and they are applied again;
--   * it ends a statement after statement_ms, and a transaction whose client is silent for silence_ms.
--     Shorter limits of the role or the database stay.
create function highwater.open_batch(
    name text, statement_ms bigint, silence_ms bigint, await_disk boolean)
returns void language plpgsql as $$
begin
    if not await_disk then
        perform set_config('synchronous_commit', 'off', true);
    end if;
    if version() like '%linux%' then
        perform set_config('client_connection_check_interval', '1000', true);
    end if;
    if current_setting('statement_timeout') <> '0' then
        statement_ms := least(statement_ms,
            extract(epoch from current_setting('statement_timeout')::interval) * 1000);
    end if;
    if current_setting('idle_in_transaction_session_timeout') <> '0' then
        silence_ms := least(silence_ms,
            extract(epoch from current_setting('idle_in_transaction_session_timeout')::interval) * 1000);
    end if;
    perform set_config('row_security', 'off', true),
            set_config('application_name', name, true),
            set_config('statement_timeout', statement_ms::text, true),
            set_config('idle_in_transaction_session_timeout', silence_ms::text, true);
end $$;
comment on function highwater.open_batch(text, bigint, bigint, boolean) is
    'Internal: sets what holds for the transaction of a batch.';

-- The checkpoint's row as a runner knows it.
create type highwater.fence as (
    projection text,
    generation integer,
    partition  integer,
    epoch      bigint,
    parking    bigint
);

-- The batch of the current transaction: the value of the setting highwater.batch. `dead_letter` is the
-- position of a dead letter that is retried; `parks` says that its generation has parked keys.
create type highwater.batch as (
    projection text,
    generation integer,
    partition  integer,
    partitions integer,
    after      bigint,
    through    bigint,
    dead_letter bigint,
    parks      boolean
);

create function highwater.current_batch() returns highwater.batch
language sql stable parallel safe
return nullif(current_setting('highwater.batch', true), '')::highwater.batch;
comment on function highwater.current_batch() is 'Internal: the batch of the current transaction; null outside a batch.';

-- Raises HW101: the checkpoint is not in the state that the caller knows.
create function highwater.raise_fenced(fence highwater.fence, after bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception using
        errcode = 'HW101',
        message = format('the checkpoint of "%s" is no longer at position %s under epoch %s',
                         fence.projection, after, fence.epoch);
end $$;
comment on function highwater.raise_fenced(highwater.fence, bigint) is 'Internal: raises HW101.';

-- The fence: the first statement of every transaction that writes a read model. It moves the
-- checkpoint if position, epoch and parked keys are those that the caller knows. Otherwise it raises
-- HW101, so that nothing sent after it can commit. It also sets the range of the view "batch".
create function highwater.begin_batch(
    fence highwater.fence, after bigint, through bigint, event_position bigint, event_id uuid
) returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    moved highwater.checkpoint;
begin
    update highwater.checkpoint c
       set position = begin_batch.through,
           event_position = coalesce(begin_batch.event_position, c.event_position),
           event_id = coalesce(begin_batch.event_id, c.event_id),
           last_error = null,
           updated_at = clock_timestamp()
     where c.projection = fence.projection
       and c.generation = fence.generation
       and c.partition = fence.partition
       and c.epoch = fence.epoch
       and c.parking = fence.parking
       and c.position = begin_batch.after
       and begin_batch.through >= c.position
       and begin_batch.through <= coalesce(c.drain_at, begin_batch.through)
    returning * into moved;
    if not found then
        perform highwater.raise_fenced(fence, begin_batch.after);
    end if;
    perform set_config('highwater.batch', row(
        moved.projection, moved.generation, moved.partition, moved.partitions,
        begin_batch.after, begin_batch.through, null,
        exists (select from highwater.dead_letter d
                 where d.projection = moved.projection and d.generation = moved.generation)
    )::highwater.batch::text, true);
end $$;
comment on function highwater.begin_batch(highwater.fence, bigint, bigint, bigint, uuid) is
    'Internal: the fence of a batch.';

-- The last statement before COMMIT: raises HW102 unless the transaction is still the one that the fence
-- opened for this range. In a transaction that an error has aborted it fails by itself, where COMMIT
-- would roll back without an error.
create function highwater.end_batch(after bigint, through bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    batch highwater.batch := highwater.current_batch();
begin
    if batch.after is distinct from end_batch.after
       or batch.through is distinct from end_batch.through then
        raise exception using
            errcode = 'HW102',
            message = 'the projection ended the transaction that the engine had opened';
    end if;
end $$;
comment on function highwater.end_batch(bigint, bigint) is 'Internal: raises HW102.';
