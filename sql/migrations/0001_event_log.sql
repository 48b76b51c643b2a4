-- The event log: one table, the functions that append to it, and the wake.
--
-- What must hold:
--   * position comes from the identity's sequence with CACHE 1, drawn inside the transaction that
--     inserts the row: the proof of the high-water mark rests on it;
--   * no trigger, no second table: a plain insert by anybody is a full append;
--   * nothing here sends a NOTIFY while it appends (it would take a lock of the whole cluster until
--     the commit);
--   * a function that takes any type, or a literal, is named with pg_catalog: where everybody may
--     create in public, another of that name with nearer types would be called, with the caller's
--     rights. A search path for each function would cost every append.
--
-- SQLSTATEs that the functions raise, fixed for ever:
--   HW001  the stream is not at the expected version
--   HW002  the event id is there already, with other content
--   HW003  an event that cannot be stored
--   40001  other writers came first too often, or the isolation level forbids to look again: run
--          the transaction again

-- An administrator may have made the schema for a role that may make none; `if not exists` would
-- ask for that right all the same.
do $$ begin
    if not exists (select from pg_namespace where nspname = 'highwater') then
        create schema highwater;
        comment on schema highwater is 'highwater: the event log and what the engine knows about it';
    end if;
end $$;

create table highwater.source (
    singleton boolean primary key default true check (singleton),
    identity uuid not null default gen_random_uuid(),
    created_at timestamptz not null default clock_timestamp()
);
insert into highwater.source default values;
comment on table highwater.source is 'One row: which log this is.';
comment on column highwater.source.identity is
    'Identity of this log. A checkpoint holds it, so that another log is never taken for this one.';

-- Collation C: the order of a stream''s name means nothing, and an index under it survives a change
-- of the operating system''s collations.
create table highwater.event (
    position bigint generated always as identity (cache 1) primary key,
    stream text collate "C" not null,
    version bigint not null,
    type text collate "C" not null,
    data jsonb not null,
    metadata jsonb not null default '{}',
    id uuid not null default gen_random_uuid(),
    recorded_at timestamptz not null default clock_timestamp(),
    constraint event_stream_version_key unique (stream, version),
    constraint event_id_key unique (id),
    constraint event_stream_length check (octet_length(stream) between 1 and 1024),
    constraint event_type_length check (octet_length(type) between 1 and 1024),
    constraint event_version_positive check (version > 0),
    constraint event_metadata_object check (jsonb_typeof(metadata) = 'object')
);
comment on table highwater.event is
    'The event log. Rows are inserted and never changed; insert into it or call highwater.append.';
comment on column highwater.event.position is
    'Place in the log, drawn before the commit: a lower number may commit after a higher one, and a '
    'rolled back append leaves a hole for ever. Read through highwater, or up to its mark only.';
comment on column highwater.event.stream is
    'The stream it belongs to, for example order-42; 1 to 1,024 bytes.';
comment on column highwater.event.version is
    'Place in the stream: 1, 2, 3 and so on. Two writers cannot take the same one.';
comment on column highwater.event.type is
    'The type, for example OrderPlaced; 1 to 1,024 bytes.';
comment on column highwater.event.data is 'What happened, any JSON value.';
comment on column highwater.event.metadata is 'Facts about the event, a JSON object.';
comment on column highwater.event.id is
    'Identity of the event. Appending the same id with the same content again appends nothing.';
comment on column highwater.event.recorded_at is
    'When the row was written, by this server''s clock. Not the order of commits.';

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
        hint = 'read the stream again and decide anew';
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

-- Optimistic: the next version is read and taken. Whoever loses it queues for the stream and looks
-- again, so nobody starves; who does not lose pays for no lock.
--
-- Without sequential scans, so that a plan that a session made while the table was small does not
-- read all of it when it has grown.
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
    '0 demands that there is no such stream, n that its last version is n. The same id with the '
    'same content (stream, type, data, metadata, and the version if one is expected) is the same '
    'append: the position of the event that is there comes back. No wake is sent: call '
    'highwater.wake() after the commit, or let the engine poll. Raises HW001 (not the expected '
    'version), HW002 (id with other content), HW003 (an event that cannot be stored).';

-- Where each event of highwater.append_all goes, by the log as it is now. `rank` numbers the events
-- that are new; `first` is the place of the first event of the array with the same id.
-- The limits inside the laterals and the settings of highwater.append_all keep every look-up an index
-- probe: a plan that a session made while the table was small must not scan it when it has grown.
create function highwater.place_events(
    streams text[], types text[], data jsonb[], metadata jsonb[], ids uuid[],
    expected_versions bigint[],
    out positions bigint[], out versions bigint[], out ranks bigint[], out firsts bigint[],
    out new_count bigint, out version_fault bigint, out id_fault bigint
) language plpgsql as $$
begin
    with input as (
        select i.*, case when i.id is null then i.n
            else min(i.n) over (partition by i.id) end as first
        from unnest(streams, types, place_events.data, place_events.metadata, ids,
                expected_versions) with ordinality
            as i (stream, type, data, metadata, id, expected, n)
    ), met as (
        select i.n, i.stream, i.expected, i.first, known.position, known.version,
            i.first = i.n and known.position is null as is_new,
            case when known.position is not null then not known.same
                when i.first < i.n then (streams[i.first], types[i.first],
                    place_events.data[i.first], place_events.metadata[i.first]) is distinct from (i.stream, i.type, i.data, i.metadata)
                else false end as differs
        from input as i
        left join lateral (
            select e.position, e.version,
                e.stream = i.stream and e.type = i.type and e.data = i.data
                    and e.metadata = i.metadata
                    and (i.expected is null or e.version = i.expected + 1) as same
            from highwater.event as e where e.id = i.id limit 1
        ) as known on true
    ), last as (
        select s.stream, coalesce((
            select e.version from highwater.event as e
            where e.stream = s.stream order by e.version desc limit 1), 0) as version
        from (select distinct met.stream from met) as s
    ), placed as (
        select met.n, met.first, met.expected, met.position, met.is_new, met.differs,
            case when met.is_new then last.version + count(*) filter (where met.is_new)
                over (partition by met.stream order by met.n) else met.version end as version,
            case when met.is_new
                then count(*) filter (where met.is_new) over (order by met.n) end as rank
        from met join last on last.stream = met.stream
    )
    select pg_catalog.array_agg(p.position order by p.n), pg_catalog.array_agg(p.version order by p.n),
        pg_catalog.array_agg(p.rank order by p.n), pg_catalog.array_agg(p.first order by p.n),
        count(*) filter (where p.is_new),
        min(p.n) filter (where p.is_new and p.version <> p.expected + 1),
        min(p.n) filter (where p.differs)
    into positions, versions, ranks, firsts, new_count, version_fault, id_fault
    from placed as p;
end $$;
comment on function highwater.place_events(text[], text[], jsonb[], jsonb[], uuid[], bigint[]) is
    'Internal: where each event of highwater.append_all goes.';

-- Raises the error of the first event of the array that highwater.place_events found at fault.
-- Returns if another writer has appended that very event in between: look again.
create function highwater.raise_fault(
    n bigint, stream text, type text, data jsonb, metadata jsonb, id uuid, expected bigint,
    first bigint, version bigint
) returns void language plpgsql as $$
declare
    known highwater.event;
begin
    select e.* into known from highwater.event as e where e.id = raise_fault.id;
    if known.position is not null then
        if known.stream <> raise_fault.stream or known.type <> raise_fault.type
            or known.data <> raise_fault.data or known.metadata <> raise_fault.metadata
            or known.version <> expected + 1
        then
            perform highwater.raise_id_conflict(known, stream, type, data, metadata, expected + 1);
        end if;
        return;
    end if;
    if first < n then
        raise exception using
            errcode = 'HW002',
            message = pg_catalog.format('event id %s is there twice in one append, with different content: '
                'events %s and %s', id, first, n),
            hint = 'give each event an id of its own';
    end if;
    perform highwater.raise_version_conflict(stream, expected, version - 1);
end $$;
comment on function highwater.raise_fault(
    bigint, text, text, jsonb, jsonb, uuid, bigint, bigint, bigint) is 'Internal: raises HW001 or HW002.';

-- Raises HW003 if the arrays do not fit together or one of the events cannot be stored.
create function highwater.check_events(
    streams text[], types text[], data jsonb[], metadata jsonb[], ids uuid[],
    expected_versions bigint[]
) returns void language plpgsql as $$
declare
    dims text := pg_catalog.format('[1:%s]', pg_catalog.cardinality(streams));
begin
    if array_dims(streams) is distinct from dims or array_dims(types) is distinct from dims
        or array_dims(data) is distinct from dims or array_dims(metadata) <> dims
        or array_dims(ids) <> dims or array_dims(expected_versions) <> dims
        or pg_catalog.cardinality(metadata) = 0 or pg_catalog.cardinality(ids) = 0 or pg_catalog.cardinality(expected_versions) = 0
    then
        raise exception using
            errcode = 'HW003',
            message = 'the arrays of an append have different lengths',
            hint = 'give each array one element for each event; metadata, ids and '
                'expected_versions may be null as a whole';
    end if;
    perform highwater.check_event(i.stream, i.type, i.data, i.metadata, i.expected)
    from unnest(streams, types, check_events.data, check_events.metadata, expected_versions)
        as i (stream, type, data, metadata, expected)
    where i.stream is null or octet_length(i.stream) not between 1 and 1024
        or i.type is null or octet_length(i.type) not between 1 and 1024
        or i.data is null or jsonb_typeof(i.metadata) <> 'object' or i.expected < 0
    limit 1;
end $$;
comment on function highwater.check_events(text[], text[], jsonb[], jsonb[], uuid[], bigint[]) is
    'Internal: raises HW003.';

-- Positions are drawn in the order of the array, the rows inserted in the order of their streams:
-- two appends that share streams then wait for each other in one direction only.
--
-- The settings make one plan for a session, good for one event and for thousands, where planning
-- anew each time costs more than a small append. What they forbid has a price in that plan, which
-- would have it compiled: hence no jit.
create function highwater.append_all(
    streams text[],
    types text[],
    data jsonb[],
    metadata jsonb[] default null,
    ids uuid[] default null,
    expected_versions bigint[] default null
) returns table ("position" bigint, version bigint, duplicate boolean) language plpgsql
set plan_cache_mode = force_generic_plan set jit = off
set enable_seqscan = off set enable_bitmapscan = off set enable_nestloop = off as $$
declare
    place record;
    fault bigint;
    drawn bigint[];
    violated text;
begin
    if pg_catalog.cardinality(streams) = 0 and pg_catalog.cardinality(types) = 0 and pg_catalog.cardinality(data) = 0 then
        return;
    end if;
    perform highwater.check_events(streams, types, data, metadata, ids, expected_versions);
    if metadata is null then
        metadata := pg_catalog.array_fill('{}'::jsonb, array[pg_catalog.cardinality(streams)]);
    elsif array_position(metadata, null) is not null then
        metadata := array_replace(metadata, null, '{}');
    end if;

    for attempt in 1..100 loop
        place := highwater.place_events(streams, types, data, metadata, ids, expected_versions);
        select least(place.version_fault, place.id_fault, min(i.n)) into fault
        from unnest(place.firsts, expected_versions) with ordinality as i (first, expected, n)
        where i.first < i.n and place.versions[i.first] <> i.expected + 1;
        if fault is not null then
            perform highwater.raise_fault(fault, streams[fault], types[fault], data[fault],
                metadata[fault], ids[fault], expected_versions[fault], place.firsts[fault],
                place.versions[fault]);
            continue;
        end if;
        select pg_catalog.array_agg(pg_catalog.nextval('highwater.event_position_seq'::regclass)) into drawn
        from generate_series(1, place.new_count);
        begin
            insert into highwater.event (position, stream, version, type, data, metadata, id)
            overriding system value
            select d.position, i.stream, i.version, i.type, i.data, i.metadata,
                coalesce(i.id, gen_random_uuid())
            from unnest(streams, types, append_all.data, append_all.metadata, ids,
                    place.versions, place.ranks)
                as i (stream, type, data, metadata, id, version, rank)
            join pg_catalog.unnest(drawn) with ordinality as d (position, rank) on d.rank = i.rank
            order by i.stream collate "C", i.version;
            return query
                select coalesce(i.position, drawn[place.ranks[i.first]]),
                    coalesce(i.version, place.versions[i.first]), i.rank is null
                from unnest(place.positions, place.versions, place.ranks, place.firsts)
                    with ordinality as i (position, version, rank, first, n)
                order by i.n;
            return;
        exception when unique_violation then
            get stacked diagnostics violated = constraint_name;
            if violated not in ('event_stream_version_key', 'event_id_key')
                or current_setting('transaction_isolation') not like 'read %'
            then
                raise exception using errcode = '40001', message = sqlerrm,
                    hint = 'run the transaction again';
            end if;
        end;
        -- A queue for who lost; taken in one order, and few, since the server's room for locks is
        -- shared. What is appended does not depend on it.
        perform pg_advisory_xact_lock(q.key) from (
            select distinct pg_catalog.hashtextextended(s.stream collate "C", 7236::bigint) as key
            from pg_catalog.unnest(streams) as s (stream) order by 1 limit 16
        ) as q;
    end loop;
    raise exception using
        errcode = '40001',
        message = 'other writers took the next version of one of these streams a hundred times',
        hint = 'run the transaction again';
end $$;
comment on function highwater.append_all(text[], text[], jsonb[], jsonb[], uuid[], bigint[]) is
    'Appends many events, all or none, and returns for each, in order, its position, its version '
    'and whether it was there already. Positions follow the order of the arrays. Each event is '
    'taken as highwater.append takes one, those before it in the arrays counting as appended. It '
    'draws positions itself: the caller needs USAGE on the sequence highwater.event_position_seq. '
    'Raises HW001, HW002 and HW003 as highwater.append does; HW003 for arrays of different '
    'lengths too.';

create function highwater.wake("position" bigint default null) returns void language sql as $$
    select pg_notify('highwater_wake', coalesce("position"::text, ''))
$$;
comment on function highwater.wake(bigint) is
    'Tells the engines that listen that something was appended. A hint and nothing more; they poll '
    'too. Call it after the commit of the append, in a transaction of its own: a NOTIFY holds a lock '
    'of the whole cluster from the moment its transaction commits until that commit is done.';
