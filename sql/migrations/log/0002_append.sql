-- Appends one event.
--
-- What must hold: calls of functions that take any type, or a literal, are qualified with pg_catalog.
-- If everybody may create functions in public, PostgreSQL would prefer one of the same name with closer
-- types, and run it with the caller's rights. A search path for each function would cost every append.
--
-- SQLSTATEs that the functions raise, fixed for ever:
--   HW001  the stream is not at the expected version
--   HW002  the event id exists already, with other content
--   HW003  an event that cannot be stored
--   40001  other writers came first too often, or the isolation level hides their rows: run the
--          transaction again

-- Raises HW002, naming what differs. `known` is the event that has the id.
create function highwater.raise_id_conflict(
    known highwater.event, stream text, type text, data jsonb, metadata jsonb, version bigint
) returns void language plpgsql as $$
begin
    raise exception using
        errcode = 'HW002',
        message = pg_catalog.format(
            'event id %s is there already with other content, at position %s: %s', known.id,
            known.position, concat_ws(', ',
                case when known.stream <> raise_id_conflict.stream
                    then pg_catalog.format('stream is %L, not %L', known.stream, raise_id_conflict.stream) end,
                case when known.type <> raise_id_conflict.type
                    then pg_catalog.format('type is %L, not %L', known.type, raise_id_conflict.type) end,
                case when known.version <> raise_id_conflict.version
                    then pg_catalog.format('version is %s, not %s', known.version, raise_id_conflict.version) end,
                case when known.data <> raise_id_conflict.data then 'data differs' end,
                case when known.metadata <> raise_id_conflict.metadata then 'metadata differs' end)),
        hint = 'give the new event an id of its own';
end $$;
comment on function highwater.raise_id_conflict(highwater.event, text, text, jsonb, jsonb, bigint) is
    'Internal: raises HW002.';

-- Raises HW001 for one event.
create function highwater.raise_version_conflict(stream text, expected bigint, actual bigint)
returns void language plpgsql as $$
begin
    raise exception using
        errcode = 'HW001',
        message = pg_catalog.format('stream %L: expected %s, found %s', stream,
            case when expected = 0 then 'no stream' else 'version ' || expected end,
            case when actual = 0 then 'no stream' else 'version ' || actual end),
        hint = 'read the stream again and decide again';
end $$;
comment on function highwater.raise_version_conflict(text, bigint, bigint) is
    'Internal: raises HW001.';

-- Raises HW003 if the event cannot be stored.
create function highwater.check_event(
    stream text, type text, data jsonb, metadata jsonb, expected_version bigint
) returns void language plpgsql as $$
declare
    fault text := case
        when coalesce(stream, '') = '' then 'its stream is empty'
        when octet_length(stream) > 1024 then 'its stream is longer than 1,024 bytes'
        when coalesce(type, '') = '' then 'its type is empty'
        when octet_length(type) > 1024 then 'its type is longer than 1,024 bytes'
        when data is null then 'its data is null (the JSON value ''null'' is allowed)'
        when jsonb_typeof(metadata) <> 'object' then 'its metadata is not a JSON object'
        when expected_version < 0 then 'its expected version is below 0'
    end;
begin
    if fault is not null then
        raise exception using
            errcode = 'HW003',
            message = pg_catalog.format('the event of stream %L and type %L cannot be stored: %s',
                left(stream, 100), left(type, 100), fault);
    end if;
end $$;
comment on function highwater.check_event(text, text, jsonb, jsonb, bigint) is
    'Internal: raises HW003.';

-- Optimistic: reads the last version and inserts the next one. A writer that loses the race queues for
-- the stream and retries, so no writer starves. A writer that wins takes no lock.
--
-- Without sequential scans: a plan that a session made for a small table must not scan a large one.
create function highwater.append_one(
    stream text,
    type text,
    data jsonb,
    metadata jsonb default '{}',
    id uuid default null,
    expected_version bigint default null,
    out "position" bigint,
    out version bigint,
    out duplicate boolean
) language plpgsql set enable_seqscan = off as $$
declare
    last_version bigint;
    known highwater.event;
begin
    metadata := coalesce(metadata, '{}');
    if octet_length(stream) between 1 and 1024 and octet_length(type) between 1 and 1024
        and data is not null and jsonb_typeof(metadata) = 'object'
        and coalesce(expected_version, 0) >= 0
    then null;
    else perform highwater.check_event(stream, type, data, metadata, expected_version);
    end if;

    for attempt in 1..100 loop
        select e.version into last_version from highwater.event as e
        where e.stream = append_one.stream order by e.version desc limit 1;
        last_version := coalesce(last_version, 0);

        if expected_version is null or expected_version = last_version then
            insert into highwater.event as e (stream, version, type, data, metadata, id)
            values (append_one.stream, last_version + 1, append_one.type, append_one.data,
                append_one.metadata, coalesce(append_one.id, gen_random_uuid()))
            on conflict do nothing
            returning e.position, e.version, false into "position", version, duplicate;
            if "position" is not null then
                return;
            end if;
        end if;

        if id is not null then
            select e.* into known from highwater.event as e where e.id = append_one.id;
            if known.position is not null then
                if known.stream <> append_one.stream or known.type <> append_one.type
                    or known.data <> append_one.data or known.metadata <> append_one.metadata
                    or known.version <> expected_version + 1
                then
                    perform highwater.raise_id_conflict(known, stream, type, data, metadata,
                        expected_version + 1);
                end if;
                "position" := known.position;
                version := known.version;
                duplicate := true;
                return;
            end if;
        end if;
        if expected_version <> last_version then
            perform highwater.raise_version_conflict(stream, expected_version, last_version);
        end if;
        perform pg_advisory_xact_lock(pg_catalog.hashtextextended(append_one.stream collate "C", 7236::bigint));
    end loop;
    raise exception using
        errcode = '40001',
        message = pg_catalog.format('other writers took the next version of stream %L a hundred times', stream),
        hint = 'run the transaction again';
end $$;
comment on function highwater.append_one(text, text, jsonb, jsonb, uuid, bigint) is
    'As highwater.append, but returns the position, the version and whether the event was there '
    'already.';

create function highwater.append(
    stream text,
    type text,
    data jsonb,
    metadata jsonb default '{}',
    id uuid default null,
    expected_version bigint default null
) returns bigint language plpgsql as $$
begin
    return (highwater.append_one(stream, type, data, metadata, id, expected_version)).position;
end $$;
comment on function highwater.append(text, text, jsonb, jsonb, uuid, bigint) is
    'Appends one event and returns its position. expected_version: null takes the next version, '
    '0 expects no stream, n expects the stream at version n. If an event with the same id and '
    'content (stream, type, data, metadata, and the version if one is expected) exists, it '
    'appends nothing and returns the position of that event. No wake is sent: call '
    'highwater.wake() after the commit, or let the engine poll. Raises HW001 (not the expected '
    'version), HW002 (id with other content), HW003 (an event that cannot be stored).';
