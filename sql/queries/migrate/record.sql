-- Purpose: records a migration as applied.
-- Parameters: $1 number (int4), $2 name (text), $3 SHA-256 of its text in hexadecimal (text).
-- Must hold: runs in the transaction that applied it.
insert into highwater.migration (number, name, hash) values ($1, $2, $3)
