/* highwater
# All optional. Without `events` every event comes; name the types that count to leave out the rest:
# events = ["OrderPlaced", "OrderShipped"]
*/

-- How many events each stream has of each type, and the last of them: a first projection to edit.
-- The file's name is the projection's name and the schema of its tables: select * from
-- streams.streams. After a change `highwater rebuild streams` builds it anew beside the old one.

-- highwater: up
create table streams (
    stream        text not null,
    type          text not null,
    events        bigint not null,
    last_position bigint not null,
    last_at       timestamptz not null,
    primary key (stream, type)
);

-- highwater: apply

-- `batch` has the new events: position, stream, version, type, data, metadata, id, recorded_at.
-- A statement sees many events at once; how many varies, so the outcome must not depend on it.
insert into streams (stream, type, events, last_position, last_at)
select stream, type, count(*), max(position), max(recorded_at)
from batch
group by stream, type
on conflict (stream, type) do update set
    events = streams.events + excluded.events,
    last_position = excluded.last_position,
    last_at = greatest(streams.last_at, excluded.last_at);
