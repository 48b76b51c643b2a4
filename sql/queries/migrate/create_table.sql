-- Purpose: creates the table of applied migrations unless it exists. It also marks the schema as
-- ours.
-- Parameters: none.
create table if not exists highwater.migration (
    component text not null check (component in ('log', 'engine')),
    number integer not null check (number > 0),
    name text not null,
    hash text not null check (hash ~ '^[0-9a-f]{64}$'),
    applied_at timestamptz not null default clock_timestamp(),
    applied_by text not null default session_user,
    primary key (component, number)
)
