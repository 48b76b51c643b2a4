-- Appends many events, all or none.

-- Positions are drawn in the order of the array. Rows are inserted in the order of their streams, so
-- that two appends that share streams cannot deadlock.
--
-- The settings make one plan for a session, good for one event and for thousands: planning each time
-- costs more than a small append. The disabled plan nodes raise the plan's cost above the threshold of
-- jit, hence no jit.
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
        -- Writers that lost the race queue here. Locked in one order, and at most 16, because the
        -- server's lock table is shared. The result does not depend on it.
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
    'appended as by highwater.append, after those before it in the arrays. The function draws the '
    'positions: the caller needs USAGE on the sequence highwater.event_position_seq. '
    'Raises HW001, HW002 and HW003 as highwater.append does; HW003 for arrays of different '
    'lengths too.';
