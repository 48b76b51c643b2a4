/* highwater
# The day, as a number: the rows of a day belong to one partition.
key = "(recorded_at at time zone 'UTC')::date - date '2000-01-01'"
*/

-- How many events of each type a day has.

-- highwater: up
create table counts_per_day (
    day    date not null,
    type   text not null,
    events bigint not null,
    primary key (day, type)
);

-- highwater: apply
insert into counts_per_day (day, type, events)
select (recorded_at at time zone 'UTC')::date, type, count(*)
from batch
group by 1, 2
on conflict (day, type) do update set
    events = counts_per_day.events + excluded.events;
