-- Purpose: lets one session at a time change what belongs to a projection.
-- Parameters: $1 projection.
-- Must hold: a statement of its own, before any that locks checkpoints: that one then sees what the
-- session that was waited for has committed. A batch that parks refers to the row meanwhile.
select from highwater.projection where name = $1 for no key update
