-- Purpose: stores events that were read as dead letters: copies of them.
-- Parameters: $1 projection; $2 generation; then a column each, a row an event: $3 positions; $4 keys;
-- $5 ids; $6 streams; $7 versions; $8 types; $9 data; $10 metadata; $11 recorded_at; and, the same for
-- all, $12 the error; $13 its fingerprint; $14 the attempts.
-- Must hold: under the fence that moves the checkpoint over them.
insert into highwater.dead_letter
       (projection, generation, position, key, id, stream, version, type, data, metadata, recorded_at,
        error, fingerprint, attempts)
select $1::text, $2::integer, e.position, e.key, e.id, e.stream, e.version, e.type, e.data, e.metadata,
       e.recorded_at, $12::jsonb, $13::text, $14::integer
  from unnest($3::bigint[], $4::text[], $5::uuid[], $6::text[], $7::bigint[], $8::text[],
              $9::jsonb[], $10::jsonb[], $11::timestamptz[])
       e (position, key, id, stream, version, type, data, metadata, recorded_at)
