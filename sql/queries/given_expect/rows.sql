-- Purpose: the rows of a table as they are compared with those expected.
-- Must hold: always in the same order, so that two runs with the same difference report it alike.
-- `table`: the table, with its schema.
select to_jsonb(t) from /*table:*/ t /*:table*/ t order by to_jsonb(t)::text
