-- The event log: one table.
--
-- What must hold:
--   * position comes from the identity's sequence with CACHE 1, drawn inside the transaction that
--     inserts the row: the proof of the high-water mark rests on it;
--   * no trigger on insert, no second table: a plain insert by anybody is a full append;
--   * nothing here sends a NOTIFY while it appends (it would take a lock of the whole cluster until
--     the commit).

create table highwater.source (
    singleton boolean primary key default true check (singleton),
    identity uuid not null default gen_random_uuid(),
    removed_through bigint not null default 0 check (removed_through >= 0),
    created_at timestamptz not null default clock_timestamp()
);
insert into highwater.source default values;
comment on table highwater.source is 'One row: which log this is.';
comment on column highwater.source.identity is
    'Identity of this log. Checkpoints store it, so that another log is detected.';
comment on column highwater.source.removed_through is
    'The oldest events, up to this position, were deleted; 0 if none were. A projection that has not '
    'read them is stranded.';

-- Collation C: the order of names means nothing, and an update of the operating system's collations
-- does not corrupt the indexes.
create table highwater.event (
    position bigint generated always as identity (cache 1) primary key,
    stream text collate "C" not null,
    version bigint not null,
    type text collate "C" not null,
    data jsonb not null,
    metadata jsonb not null default '{}',
    id uuid not null default gen_random_uuid(),
    recorded_at timestamptz not null default clock_timestamp(),
    constraint event_stream_version_key unique (stream, version),
    constraint event_id_key unique (id),
    constraint event_stream_length check (octet_length(stream) between 1 and 1024),
    constraint event_type_length check (octet_length(type) between 1 and 1024),
    constraint event_version_positive check (version > 0),
    constraint event_metadata_object check (jsonb_typeof(metadata) = 'object')
);
comment on table highwater.event is
    'The event log. Rows are inserted and never changed; insert into it or call highwater.append.';
comment on column highwater.event.position is
    'Place in the log, drawn before the commit: a lower number may commit after a higher one, and a '
    'rolled back append leaves a hole for ever. Read through highwater, or up to its mark only.';
comment on column highwater.event.stream is
    'The stream it belongs to, for example order-42; 1 to 1,024 bytes.';
comment on column highwater.event.version is
    'Place in the stream: 1, 2, 3 and so on. Two writers cannot take the same one.';
comment on column highwater.event.type is
    'The type, for example OrderPlaced; 1 to 1,024 bytes.';
comment on column highwater.event.data is 'What happened, any JSON value.';
comment on column highwater.event.metadata is 'Facts about the event, a JSON object.';
comment on column highwater.event.id is
    'Identity of the event. Appending the same id with the same content again appends nothing.';
comment on column highwater.event.recorded_at is
    'When the row was written, by this server''s clock. Not the order of commits.';

create table highwater.removed (
    position bigint primary key,
    id uuid not null,
    removed_at timestamptz not null default clock_timestamp()
);
comment on table highwater.removed is
    'Deleted events above highwater.source.removed_through.';
