-- Purpose: who reads the view `batch` needs the right to read the events themselves. Anybody can set
-- the bounds that it reads, and a grant on all tables of the schema would show the whole log.
-- {schema}: the projection's schema.
-- Must hold: after each create or replace, which takes the setting away. PostgreSQL 14 has none.
do $$ begin
    if current_setting('server_version_num')::integer >= 150000 then
        alter view {schema}.batch set (security_invoker = true);
    end if;
end $$
