-- Purpose: how many events of some types the planner expects, by the statistics that it has.
-- Parameters: $1 the types.
-- `events`: a relation with the columns of highwater.event.
explain (format json) select from /*events:*/ highwater.event /*:events*/ e where e.type = any($1::text[])
