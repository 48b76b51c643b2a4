-- Purpose: whether a projection's key is an expression over the columns of a batch that always gives
-- the same: an index demands both, and text is what is hashed.
-- `table`: an empty table with the columns of a batch; `key`: the expression.
create index on /*table:*/ highwater.event /*:table*/ ((/*key:*/ stream /*:key*/::text collate "C"))
