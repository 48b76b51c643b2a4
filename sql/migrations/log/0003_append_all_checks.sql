-- The checks of highwater.append_all, and the version of each event.

-- The position and version of each event of highwater.append_all, by the log as it is now. `rank`
-- numbers the new events; `first` is the index of the first event of the array with the same id.
-- The limits inside the laterals and the settings of highwater.append_all make every lookup an index
-- probe: a plan that a session made for a small table must not scan a large one.
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
    'Internal: the position and version of each event of highwater.append_all.';

-- Raises the error of the first faulty event that highwater.place_events found. Returns if another
-- writer has appended that very event in the meantime: then try again.
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

-- Raises HW003 if the arrays do not match or one of the events cannot be stored.
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
