insert into orders (stream, events, amount)
select stream, count(*), sum((data ->> 'amount')::bigint)
from highwater.event
where :mine
group by stream;

insert into customers (customer, events, amount)
select data ->> 'customer', count(*), sum((data ->> 'amount')::bigint)
from highwater.event
where :mine
group by 1;
