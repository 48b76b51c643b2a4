-- Purpose: stores the events of parked keys in a batch as dead letters, where the server can read
-- the log itself.
-- `events`: the events; `after`, `through`: the range; `types`, `partition`, `parked`: which events;
-- `key`: the key; `projection`, `generation`: the read model; `most`: one more than the limit,
-- which highwater.check_parked then refuses.
-- Must hold: under the fence that moves the checkpoint over them.
insert into highwater.dead_letter
       (projection, generation, position, key, id, stream, version, type, data, metadata, recorded_at)
select /*projection:*/ 'p' /*:projection*/, /*generation:*/ 1 /*:generation*/, e.position,
       /*key:*/ e.stream /*:key*/::text, e.id, e.stream, e.version, e.type, e.data, e.metadata, e.recorded_at
  from /*events:*/ highwater.event /*:events*/ e
 where e.position > /*after:*/ 0 /*:after*/ and e.position <= /*through:*/ 0 /*:through*/
   and /*types:*/ true /*:types*/ and /*partition:*/ true /*:partition*/ and /*parked:*/ true /*:parked*/
 limit /*most:*/ 1 /*:most*/
