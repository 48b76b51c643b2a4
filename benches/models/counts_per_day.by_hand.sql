insert into counts_per_day (day, type, events)
select (recorded_at at time zone 'UTC')::date, type, count(*)
from highwater.event
where :mine
group by 1, 2;
