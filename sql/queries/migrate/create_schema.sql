-- Purpose: creates schema highwater unless it exists.
-- Parameters: none.
-- Must hold: needs no right on the database when an administrator has created the schema.
do $$ begin
    if not exists (select from pg_namespace where nspname = 'highwater') then
        create schema highwater;
        comment on schema highwater is 'highwater: the event log and what the engine knows about it';
    end if;
end $$
