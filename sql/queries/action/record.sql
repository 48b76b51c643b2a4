-- Purpose: records what an operator did; role, application and time are those of the session.
-- Parameters: $1 the host; $2 the command; $3 the projection; $4 details.
-- Must hold: in the transaction of the change.
insert into highwater.action (host, command, projection, detail) values ($1, $2, $3, $4)
