-- highwater: apply
\i other.sql
select 1 \gexec
