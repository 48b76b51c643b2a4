-- Purpose: creates the record of what operators did, migrations among it, unless it is there.
-- Parameters: none.
create table if not exists highwater.action (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    role text not null default session_user,
    command text not null,
    projection text,
    detail jsonb not null default '{}'
)
