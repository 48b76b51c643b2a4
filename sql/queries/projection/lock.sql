-- Purpose: lets one session at a time change what belongs to a projection.
-- Parameters: $1 projection.
-- Must hold: a statement of its own, before any that locks checkpoints: what that one sees is what
-- was committed by whoever was waited for. A batch that parks refers to the row meanwhile.
select from highwater.projection where name = $1 for no key update
