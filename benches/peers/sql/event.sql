-- Purpose: an event table as people write it by hand
create table event (
    position bigint generated always as identity primary key,
    stream text not null,
    version bigint not null,
    type text not null,
    data jsonb not null,
    recorded_at timestamptz not null default clock_timestamp(),
    unique (stream, version)
);
