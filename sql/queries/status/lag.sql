-- Purpose: the head, and how many seconds ago the first event after each checkpoint was recorded.
-- Parameters: $1 the checkpoints' positions; the ages come in the same order.
-- Must hold: one step into the index for each position, never a count.
select (select coalesce(max(e.position), 0) from /*events:*/ highwater.event /*:events*/ e)::bigint as head,
       array(select (select extract(epoch from clock_timestamp() - e.recorded_at)::float8
                       from /*events:*/ highwater.event /*:events*/ e
                      where e.position > c.position
                      order by e.position
                      limit 1)
               from unnest($1::bigint[]) with ordinality as c(position, ordinal)
              order by c.ordinal) as ages
