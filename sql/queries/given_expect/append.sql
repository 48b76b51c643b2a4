-- Purpose: appends an event that a test gives.
-- Parameters: $1 stream; $2 version; $3 type; $4 data; $5 metadata; $6 id or null for a random
-- one; $7 recorded_at or null for now.
insert into highwater.event (stream, version, type, data, metadata, id, recorded_at)
values ($1, $2, $3, $4::jsonb, $5::jsonb, coalesce($6, gen_random_uuid()), coalesce($7, clock_timestamp()))
