-- Purpose: the identity of our own event table, which goes wherever its data goes.
select identity from highwater.source
