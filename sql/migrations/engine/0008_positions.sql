-- The table highwater_position in the schema of each read model: its position, updated in the
-- transaction that writes it. It identifies the build, and tells readers how current the tables are.

-- Replaces the rows with the checkpoints of a generation.
-- Must hold: the caller has locked these checkpoints.
create function highwater.set_positions(schema text, projection text, generation integer) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    execute format('delete from %I.highwater_position', schema);
    execute format('insert into %I.highwater_position (partition, source, position, build)
        select c.partition, c.source, c.position, g.build
          from highwater.checkpoint c
          join highwater.generation g on g.projection = c.projection and g.number = c.generation
         where c.projection = $1 and c.generation = $2', schema) using projection, generation;
end $$;
comment on function highwater.set_positions(text, text, integer) is
    'Internal: fills highwater_position of a schema.';

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
