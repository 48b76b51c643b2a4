-- Purpose: the last number that a sequence issued, 0 if it issued none; null if this role may not
-- read it.
-- Parameters: `sequence`, which is one: the sequence, as the lock snapshot found it.
-- Must hold: no row if it does not exist; a missing right is not 0, which would be a sequence set
-- back.
select case when has_sequence_privilege(s.oid, 'usage, select')
            then coalesce(pg_sequence_last_value(s.oid), 0) end
from pg_class s
where s.oid = to_regclass(/*sequence:*/ $1 /*:sequence*/)::oid and s.relkind = 'S'
