-- Purpose: the identity of our own event table, which moves with its data.
select identity from highwater.source
