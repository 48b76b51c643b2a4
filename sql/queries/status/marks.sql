-- Purpose: the database's time, and the highest mark of each source that a living instance
-- reports.
-- Parameters: none.
select clock_timestamp(), coalesce(jsonb_object_agg(m.source, m.mark), '{}')
from (select e.key as source, max(e.value::bigint) as mark
        from highwater.instance i, jsonb_each_text(i.marks) e
       where i.seen_at + i.lease > clock_timestamp()
       group by e.key) m
where m.source is not null
