-- Purpose: what `batch` is in a statement of `apply`, where source and read model share a database.
-- `events`: the events; `after`, `through`: the range, as numbers so that the planner knows it;
-- `types`, `partition`, `parked`: its events; `barrier`: `offset 0` where these leave some out.
-- Without it the planner may evaluate a condition of the projection on events that are not in the
-- batch, and stop it at an error there.
-- Must hold: a part of a message that the fence begins, so nothing of it changes meanwhile.
select e.position, e.stream, e.version, e.type, e.data, e.metadata, e.id, e.recorded_at
from /*events:*/ highwater.event /*:events*/ e
where e.position > /*after:*/ 0 /*:after*/ and e.position <= /*through:*/ 0 /*:through*/
  and /*types:*/ true /*:types*/ and /*partition:*/ true /*:partition*/ and /*parked:*/ true /*:parked*/
/*barrier:*/ offset 0 /*:barrier*/
