-- Purpose: whether a projection's key is an expression over the columns of a batch that always
-- gives the same: an index requires both, and the text is hashed.
-- `table`: an empty table with the columns of a batch; `key`: the expression.
create index on /*table:*/ highwater.event /*:table*/ ((/*key:*/ stream /*:key*/::text collate "C"))
