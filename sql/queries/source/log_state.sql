-- Purpose: the state of a log at a position, to compare with what a checkpoint knows.
-- Parameters: $1 the position.
-- Must hold: on the session that also reads the sequence and the removals: there may be several
-- servers behind one address.
-- `events`: a relation with the columns of highwater.event.
select (select coalesce(max(e.position), 0) from /*events:*/ highwater.event /*:events*/ e)::bigint as head,
       (select min(e.position) from /*events:*/ highwater.event /*:events*/ e) as oldest,
       l.position as last_position, l.id as last_id
from (select) one
left join lateral (select e.position, e.id from /*events:*/ highwater.event /*:events*/ e
                   where e.position <= $1 order by e.position desc limit 1) l on true
