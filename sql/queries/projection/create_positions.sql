-- Purpose: creates the table highwater_position of a read model.
-- Parameters: $1 its schema; $2 projection; $3 generation.
-- Must hold: in the transaction that creates the schema, after the rows of its checkpoints.
select highwater.create_positions($1, $2, $3)
