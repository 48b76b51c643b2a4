insert into last_state (stream, status, last_position)
select stream, (array_agg(data ->> 'status' order by position desc))[1], max(position)
from highwater.event
where :mine
group by stream;
