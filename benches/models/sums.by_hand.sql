insert into sums (stream, events, amount, last_position)
select stream, count(*), sum((data ->> 'amount')::bigint), max(position)
from highwater.event
where :mine
group by stream;
