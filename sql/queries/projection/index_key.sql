-- Purpose: whether a projection's key is an expression over the columns of a batch that always gives
-- the same: an index demands both, and text is what is hashed.
-- {schema}: where the empty table highwater_key with a batch's columns is; {key}: the expression.
create index on {schema}.highwater_key ((({key})::text collate "C"))
