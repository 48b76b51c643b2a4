insert into row_per_event (position, stream, type, amount, recorded_at)
select position, stream, type, (data ->> 'amount')::bigint, recorded_at
from highwater.event
where :mine;
