-- Projections, the builds of their read models, and how far each is, in the database of the read models.

create table highwater.projection (
    name            text primary key,
    generation      integer not null default 1,
    next_generation integer,
    partitions      integer not null default 1 check (partitions between 1 and 1024),
    paused_at       timestamptz,
    created_at      timestamptz not null default clock_timestamp(),
    check (next_generation > generation)
);
comment on table highwater.projection is
    'The projections that have a read model here. The schema has the name of the projection.';
comment on column highwater.projection.generation is
    'The build that readers see. A rebuild fills the next one beside it.';
comment on column highwater.projection.next_generation is
    'The build that a rebuild fills; null without a rebuild.';
comment on column highwater.projection.partitions is
    'Requested number of partitions; takes effect when all checkpoints reach one position.';
comment on column highwater.projection.paused_at is
    'When an operator paused it; null if not paused.';

create table highwater.generation (
    projection text not null references highwater.projection (name) on delete cascade,
    number     integer not null,
    build      uuid not null default gen_random_uuid(),
    hash       text not null,
    definition text,
    source     text not null,
    mapping    jsonb,
    cut_by     text,
    key_hash   text not null,
    created_at timestamptz not null default clock_timestamp(),
    primary key (projection, number)
);
comment on table highwater.generation is
    'The builds of read models: what each was built with.';
comment on column highwater.generation.build is
    'Identity of this build. The read model''s table highwater_position holds it too.';
comment on column highwater.generation.hash is 'Hash of the definition.';
comment on column highwater.generation.definition is
    'Text of the definition, a projection file; null for a projection in Rust.';
comment on column highwater.generation.source is 'Name of the source that it reads.';
comment on column highwater.generation.mapping is
    'How the source''s table is read, as it was resolved; null for highwater''s own event table.';
comment on column highwater.generation.cut_by is
    'The SQL expression of the key that partitions it; null until it runs.';
comment on column highwater.generation.key_hash is
    'Name of the hash that assigns keys to partitions. Another hash would assign them differently.';

create table highwater.checkpoint (
    projection      text not null references highwater.projection (name) on delete cascade,
    generation      integer not null,
    partition       integer not null,
    source          text not null,
    partitions      integer not null,
    partitioning    integer not null default 1,
    position        bigint not null default 0 check (position >= 0),
    event_position  bigint,
    event_id        uuid,
    source_identity text not null,
    drain_at        bigint,
    epoch           bigint not null default 0,
    parking         bigint not null default 0,
    owner           uuid,
    state           text not null default 'idle',
    rate            double precision not null default 0,
    last_error      jsonb,
    stopped_at      timestamptz,
    updated_at      timestamptz not null default clock_timestamp(),
    primary key (projection, generation, partition, source),
    check (partition >= 0 and partition < partitions),
    check (drain_at >= position)
) with (fillfactor = 50);
comment on table highwater.checkpoint is 'How far each partition of a generation is in its source.';
-- A projection reads one source, so statements find a row by the first three columns of the key, and
-- the fence fails if it finds two. The source is in the key for projections that read several.
comment on column highwater.checkpoint.source is
    'Name of the source that position is in: that of the generation.';
comment on column highwater.checkpoint.partitions is
    'Number of partitions. This one has the keys whose highwater.partition_of(key, partitions) is its number.';
comment on column highwater.checkpoint.partitioning is
    'Rises with each change of the number of partitions.';
comment on column highwater.checkpoint.position is
    'Every wanted event up to this position is in the read model. Never decreases.';
comment on column highwater.checkpoint.event_id is
    'The last event at or before position (at event_position): if the source no longer has it, the source went back.';
comment on column highwater.checkpoint.drain_at is
    'Position at which the number of partitions changes; null if no change is pending.';
comment on column highwater.checkpoint.epoch is
    'Rises whenever a runner claims the row; a transaction of an older epoch cannot commit.';
comment on column highwater.checkpoint.parking is
    'Rises whenever a key is parked or released; the fence compares it with the value that the runner knows.';
comment on column highwater.checkpoint.state is
    'Last state reported by the owner. Ignore it if the owner is dead, except ''stopped''.';
comment on column highwater.checkpoint.stopped_at is
    'When an error stopped it. Only an instance that started later tries again.';

create table highwater.instance (
    id          uuid primary key,
    host        text not null,
    pid         integer not null,
    started_at  timestamptz not null default clock_timestamp(),
    seen_at     timestamptz not null default clock_timestamp(),
    lease       interval not null,
    marks       jsonb not null default '{}',
    projections text[] not null default '{}',
    joined_at   timestamptz not null default clock_timestamp()
);
comment on table highwater.instance is
    'The processes that run projections. An instance whose seen_at is older than its lease is dead.';
comment on column highwater.instance.marks is
    'The high-water mark of each source by name, as this instance last reported it.';
comment on column highwater.instance.projections is
    'The projections it can run. Living instances share the partitions of these.';
comment on column highwater.instance.joined_at is
    'When it joined; renewed after its lease ran out. Partitions are assigned in this order.';

-- The highest epochs of projections that were dropped: a projection that is created again under the
-- name continues from there.
create table highwater.dropped (
    projection text primary key,
    epoch      bigint not null
);
