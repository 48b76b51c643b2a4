-- Dead letters, discarded events, actions of operators, and the evidence that audit compares.

-- Dead letters: an event that could not be applied, and the later events of its key. They are
-- copies, so that they can be shown and retried whatever happens to the log.
create table highwater.dead_letter (
    projection         text not null references highwater.projection (name) on delete cascade,
    generation         integer not null,
    position           bigint not null,
    key                text,
    id                 uuid not null,
    stream             text not null,
    version            bigint not null,
    type               text not null,
    data               jsonb not null,
    metadata           jsonb not null,
    recorded_at        timestamptz not null,
    error              jsonb,
    fingerprint        text,
    attempts           integer not null default 0,
    parked_at          timestamptz not null default clock_timestamp(),
    retry_requested_at timestamptz,
    primary key (projection, generation, position)
);
comment on column highwater.dead_letter.key is
    'The parked key; null is the key null. Its dead letters are retried in the order of their positions.';
comment on column highwater.dead_letter.error is
    'Why it could not be applied; null if it was not tried, because an earlier event of its key is parked.';
comment on column highwater.dead_letter.fingerprint is
    'Error fingerprint: the same for errors of one cause.';
create index on highwater.dead_letter (projection, generation, key, position);
create index on highwater.dead_letter (projection, generation, position)
    where retry_requested_at is not null;

-- Discarded dead letters, with the role and the reason.
create table highwater.discarded (
    projection   text not null,
    generation   integer not null,
    position     bigint not null,
    key          text,
    id           uuid not null,
    stream       text not null,
    version      bigint not null,
    type         text not null,
    error        jsonb,
    attempts     integer not null,
    parked_at    timestamptz not null,
    reason       text not null check (reason <> ''),
    discarded_by text not null default current_user,
    discarded_at timestamptz not null default clock_timestamp()
);
create index on highwater.discarded (projection, position);

-- Actions of operators: every command that changes something writes one row, in its transaction.
create table highwater.action (
    id          bigint generated always as identity primary key,
    at          timestamptz not null default clock_timestamp(),
    role        text not null default session_user,
    application text not null default current_setting('application_name'),
    host        text not null,
    command     text not null,
    projection  text not null,
    detail      jsonb not null default '{}'
);
comment on table highwater.action is 'What operators did: one row for each command that changed something.';
comment on column highwater.action.host is 'The machine that the command ran on.';
create index on highwater.action (projection, id);

-- What a log held when it was read. A block covers up to 10,000 events. It is written from the rows
-- of a reader when the mark passes them, or counted later.
create table highwater.block (
    source_identity text not null,
    after           bigint not null,
    through         bigint not null check (through > after),
    events          bigint not null check (events >= 0),
    digest          bigint not null,
    counted_later   boolean not null,
    recorded_at     timestamptz not null default clock_timestamp(),
    primary key (source_identity, after)
);
comment on table highwater.block is 'Evidence for audit: the events of a log in (after, through], as they were.';
comment on column highwater.block.digest is
    'Exclusive or over uuid_hash_extended(id, position) of its events.';
comment on column highwater.block.counted_later is
    'It was counted after the mark had passed it, and proves nothing about the time before.';

-- Blocks that audit found changed. A read model that was built before that may lack an event or
-- have one too many.
create table highwater.block_change (
    source_identity text not null,
    after           bigint not null,
    through         bigint not null,
    events_before   bigint not null,
    events_now      bigint not null,
    found_at        timestamptz not null default clock_timestamp(),
    primary key (source_identity, after, found_at)
);
comment on table highwater.block_change is
    'Blocks whose events differ from the record. Generations that began later are not affected.';
