-- Checkpoints beside the read models, in the database that holds them.

create table highwater.projection (
    name            text primary key,
    generation      integer not null default 1,
    hash            text not null,
    source          text not null,
    next_generation integer,
    next_hash       text,
    created_at      timestamptz not null default clock_timestamp(),
    check ((next_generation is null) = (next_hash is null)),
    check (next_generation > generation)
);
comment on table highwater.projection is
    'The projections that have a read model here. Its schema bears the projection''s name.';
comment on column highwater.projection.generation is
    'The build that readers see. A rebuild fills the next one beside it and swaps.';
comment on column highwater.projection.hash is
    'Hash of the definition that the live generation was built with.';
comment on column highwater.projection.next_hash is
    'Hash of the definition that the next generation is being built with; null without a rebuild.';

create table highwater.instance (
    id         uuid primary key,
    host       text not null,
    pid        integer not null,
    started_at timestamptz not null default clock_timestamp(),
    seen_at    timestamptz not null default clock_timestamp(),
    lease      interval not null,
    marks      jsonb not null default '{}'
);
comment on table highwater.instance is
    'The processes that run projections. One whose seen_at is older than its lease is gone.';
comment on column highwater.instance.marks is
    'The high-water mark of each source by name, as this instance last knew it.';

create table highwater.checkpoint (
    projection      text not null references highwater.projection (name) on delete cascade,
    generation      integer not null,
    partition       integer not null,
    position        bigint not null default 0 check (position >= 0),
    event_position  bigint,
    event_id        uuid,
    source_identity text not null,
    epoch           bigint not null default 0,
    owner           uuid,
    state           text not null default 'idle',
    rate            double precision not null default 0,
    last_error      jsonb,
    updated_at      timestamptz not null default clock_timestamp(),
    primary key (projection, generation, partition)
) with (fillfactor = 50);
comment on column highwater.checkpoint.position is
    'Every event at or before this position is in the read model, or is none of its business; it only rises.';
comment on column highwater.checkpoint.event_id is
    'The last event at or before position (event_position), by which a source that went back is known.';
comment on column highwater.checkpoint.epoch is
    'Rises whenever a runner claims the row; a transaction of an older epoch cannot commit.';
comment on column highwater.checkpoint.state is
    'The runner''s state as its owner last said it; true only while the owner is alive, but for ''stopped''.';

-- The fence. It is the first statement of every transaction that writes a read model: it moves
-- the checkpoint if it still stands where the batch begins, under the epoch of the caller, and
-- raises HW101 otherwise, so that nothing sent after it can commit. It also says which range
-- the view "batch" shows for the rest of the transaction.
create function highwater.advance(
    projection text, generation integer, partition integer, epoch bigint,
    after bigint, through bigint, event_position bigint, event_id uuid
) returns void language plpgsql as $$
begin
    update highwater.checkpoint c
       set position = advance.through,
           event_position = coalesce(advance.event_position, c.event_position),
           event_id = coalesce(advance.event_id, c.event_id),
           last_error = null,
           updated_at = clock_timestamp()
     where c.projection = advance.projection
       and c.generation = advance.generation
       and c.partition = advance.partition
       and c.epoch = advance.epoch
       and c.position = advance.after
       and advance.through >= c.position;
    if not found then
        raise exception using
            errcode = 'HW101',
            message = pg_catalog.format('the checkpoint of "%s" is not at position %s under epoch %s any more',
                             advance.projection, advance.after, advance.epoch);
    end if;
    perform set_config('highwater.after', advance.after::text, true),
            set_config('highwater.through', advance.through::text, true);
end
$$;

-- The last statement before COMMIT: raises HW102 unless the transaction is still the one that
-- the fence opened for this range. In a transaction that an error has aborted it fails by
-- itself, where COMMIT would roll back without an error.
create function highwater.seal(after bigint, through bigint) returns void language plpgsql as $$
begin
    if current_setting('highwater.after', true) is distinct from seal.after::text
       or current_setting('highwater.through', true) is distinct from seal.through::text then
        raise exception using
            errcode = 'HW102',
            message = 'the projection ended the transaction that the engine had opened';
    end if;
end
$$;

-- The bounds that the views "batch" read. Outside of a batch they are null and the views empty.
create function highwater.batch_after() returns bigint
language sql stable parallel safe
return nullif(current_setting('highwater.after', true), '')::bigint;

create function highwater.batch_through() returns bigint
language sql stable parallel safe
return nullif(current_setting('highwater.through', true), '')::bigint;

-- Grants of a schema, its relations, their columns and its functions, given again on the things
-- of the same name in another schema: a rebuild must not lock its readers out.
-- What it puts together it runs, so no function of a schema in the caller's search path may come in.
create function highwater.carry_grants(from_schema text, to_schema text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    grants text;
begin
    for grants in
        with granted as (
            select 'schema ' || quote_ident(to_schema) as object, a.privilege_type as privilege,
                   a.grantee, a.is_grantable
              from pg_namespace n, aclexplode(n.nspacl) a
             where n.nspname = from_schema and a.grantee <> n.nspowner
            union all
            select case when old.relkind = 'S' then 'sequence ' else 'table ' end
                       || format('%I.%I', to_schema, old.relname),
                   a.privilege_type, a.grantee, a.is_grantable
              from pg_class old
              join pg_class new on new.relname = old.relname
               and new.relnamespace = to_regnamespace(quote_ident(to_schema))
             cross join aclexplode(old.relacl) a
             where old.relnamespace = to_regnamespace(quote_ident(from_schema))
               and a.grantee <> old.relowner
            union all
            select 'table ' || format('%I.%I', to_schema, old.relname),
                   format('%s (%I)', a.privilege_type, c.attname), a.grantee, a.is_grantable
              from pg_class old
              join pg_attribute c on c.attrelid = old.oid and not c.attisdropped
              join pg_class new on new.relname = old.relname
               and new.relnamespace = to_regnamespace(quote_ident(to_schema))
              join pg_attribute d on d.attrelid = new.oid and d.attname = c.attname
               and not d.attisdropped
             cross join aclexplode(c.attacl) a
             where old.relnamespace = to_regnamespace(quote_ident(from_schema))
               and a.grantee <> old.relowner
            union all
            select 'routine ' || format('%I.%I(%s)', to_schema, old.proname,
                       pg_get_function_identity_arguments(new.oid)),
                   a.privilege_type, a.grantee, a.is_grantable
              from pg_proc old
              join pg_proc new on new.proname = old.proname
               and new.proargtypes = old.proargtypes
               and new.pronamespace = to_regnamespace(quote_ident(to_schema))
             cross join aclexplode(old.proacl) a
             where old.pronamespace = to_regnamespace(quote_ident(from_schema))
               and a.grantee <> old.proowner
        )
        select format('grant %s on %s to %s%s', privilege, object,
                      case when grantee = 0 then 'public' else grantee::regrole::text end,
                      case when is_grantable then ' with grant option' else '' end)
          from granted
    loop
        execute grants;
    end loop;
end
$$;
