-- Purpose: sets events aside that were read: copies of them, counted in the ledger of a partition.
-- Parameters: $1 projection; $2 generation; $3 partition; then a column each, a row an event: $4
-- positions; $5 keys; $6 ids; $7 streams; $8 versions; $9 types; $10 data; $11 metadata;
-- $12 recorded_at; and, the same for all, $13 the error; $14 its fingerprint; $15 the attempts.
-- Must hold: under the fence that counts them, which moves the checkpoint over them.
insert into highwater.dead_letter
       (projection, generation, layout, partition, position, key, id, stream, version, type, data,
        metadata, recorded_at, error, fingerprint, attempts)
select c.projection, c.generation, c.layout, c.partition, e.position, e.key, e.id, e.stream,
       e.version, e.type, e.data, e.metadata, e.recorded_at, $13::jsonb, $14::text, $15::integer
  from unnest($4::bigint[], $5::text[], $6::uuid[], $7::text[], $8::bigint[], $9::text[],
              $10::jsonb[], $11::jsonb[], $12::timestamptz[])
       e (position, key, id, stream, version, type, data, metadata, recorded_at)
  join highwater.checkpoint c
    on c.projection = $1 and c.generation = $2 and c.partition = $3
