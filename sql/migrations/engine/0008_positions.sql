-- The table highwater_position in the schema of each read model: how far it is, moved in the transaction
-- that writes it. It marks the schema as a build of ours, and readers label what they read by it. Where
-- it differs from the checkpoint, one of the two was restored to another time.

-- Writes the rows again from the checkpoints of a generation. Returns whether that changed any.
-- Must hold: under the lock on these checkpoints.
create function highwater.set_positions(schema text, projection text, generation integer) returns boolean
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    rows constant text := format('select string_agg(concat_ws('' '', partition, position, build), '','' order by partition)
          from %I.highwater_position', schema);
    before text;
    after text;
begin
    execute rows into before;
    execute format('delete from %I.highwater_position', schema);
    execute format('insert into %I.highwater_position (partition, source, position, build)
        select c.partition, c.source, c.position, g.build
          from highwater.checkpoint c
          join highwater.generation g on g.projection = c.projection and g.number = c.generation
         where c.projection = $1 and c.generation = $2', schema) using projection, generation;
    execute rows into after;
    return before is distinct from after;
end $$;
comment on function highwater.set_positions(text, text, integer) is
    'Internal: fills highwater_position of a schema.';

-- Raises HW105: the read model in a schema is not where its checkpoint is.
create function highwater.raise_misplaced(schema text, partition integer, after bigint) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    beside bigint;
begin
    execute format('select p.position from %I.highwater_position p where p.partition = $1', schema)
       into beside using partition;
    raise exception using
        errcode = 'HW105',
        message = case when beside is null
            then format('%I.highwater_position has no row for partition %s', schema, partition)
            else format('partition %s of the read model in schema %I is at %s, but its checkpoint at %s',
                        partition, schema, beside, after) end,
        hint = 'restore the schema and highwater.checkpoint from one backup, or highwater rebuild; if the '
            'read model has every event up to the checkpoint, highwater accept keeps it';
end $$;
comment on function highwater.raise_misplaced(text, integer, bigint) is 'Internal: raises HW105.';

create function highwater.create_positions(schema text, projection text, generation integer) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    execute format('create table %I.highwater_position (
        partition integer not null,
        source text not null,
        position bigint not null,
        build uuid not null,
        primary key (partition, source)
    ) with (fillfactor = 50)', schema);
    execute format('comment on table %I.highwater_position is %L', schema,
        'Every event up to position is in this read model. highwater updates it.');
    perform highwater.set_positions(schema, projection, generation);
end $$;
comment on function highwater.create_positions(text, text, integer) is
    'Internal: makes highwater_position in a schema.';
