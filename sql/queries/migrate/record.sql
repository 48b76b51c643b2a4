-- Purpose: records a migration as applied.
-- Parameters: $1 component (text), $2 number (int4), $3 name (text), $4 SHA-256 of its text in
-- hexadecimal (text).
-- Must hold: runs in the transaction that applied it.
insert into highwater.migration (component, number, name, hash) values ($1, $2, $3, $4)
