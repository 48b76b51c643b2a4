-- Purpose: compares what was committed with what reached the read model
with
committed_event as (
    select stream, n, to_timestamp(unix_nanos / 1e9) as at
    from committed, generate_series(first, first + count - 1) as n
),
applied_event as (
    select
        id, stream, n, at,
        max(n) over (seen rows between unbounded preceding and 1 preceding) as before
    from applied, generate_series(first, last) as n
    window seen as (partition by stream order by id, n)
),
first_time as (
    select distinct on (stream, n) stream, n, at, before from applied_event order by stream, n, id
),
standstill as (
    select at - lag(at) over (order by at) as gap from (select at from applied) as moments
)
select
    (select count(*) from committed) as transactions,
    (select count(*) from committed_event) as events,
    (select count(*) from committed_event left join first_time as f using (stream, n) where f.n is null) as missed,
    (select count(*) from applied_event) - (select count(*) from first_time) as doubled,
    (select count(*) from first_time where n < before) as out_of_order,
    (select count(*) from first_time left join committed_event as c using (stream, n) where c.n is null) as unknown,
    (select coalesce(extract(epoch from max(gap)), 0)::float8 from standstill) as standstill_seconds,
    (select coalesce(percentile_cont(0.5) within group (order by greatest(extract(epoch from f.at - c.at), 0)), 0)::float8
        from committed_event as c join first_time as f using (stream, n)) as behind_p50_seconds,
    (select coalesce(max(greatest(extract(epoch from f.at - c.at), 0)), 0)::float8
        from committed_event as c join first_time as f using (stream, n)) as behind_max_seconds
