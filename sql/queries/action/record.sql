-- Purpose: records what an operator did.
-- Parameters: $1 the command; $2 the projection, null if it is about none; $3 what else is to be known.
-- Must hold: in the transaction of the change.
insert into highwater.action (command, projection, detail) values ($1, $2, $3)
