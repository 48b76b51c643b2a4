-- Purpose: the last number that a sequence gave, 0 if it gave none; null if this role may not know.
-- Parameters: `sequence`, which is one: the sequence, as the look found it.
-- Must hold: no row if it is not there; a missing right is no 0, which would be a sequence set back.
select case when has_sequence_privilege(s.oid, 'usage, select')
            then coalesce(pg_sequence_last_value(s.oid), 0) end
from pg_class s
where s.oid = to_regclass(/*sequence:*/ $1 /*:sequence*/)::oid and s.relkind = 'S'
