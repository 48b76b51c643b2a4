-- Purpose: copies the grants of the old generation to the new one.
-- Parameters: $1 the schema that the old generation has now; $2 the schema of the new one.
-- Must hold: in the transaction that renamed the schemas.
select highwater.carry_grants($1, $2)
