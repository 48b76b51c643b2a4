/* highwater
# An order belongs to one customer, so the rows of both tables belong to one partition.
key = "data ->> 'customer'"
*/

-- Orders, and their customers.

-- highwater: up
create table orders (
    stream text primary key,
    events bigint not null,
    amount bigint not null
);
create table customers (
    customer text primary key,
    events   bigint not null,
    amount   bigint not null
);

-- highwater: apply
insert into orders (stream, events, amount)
select stream, count(*), sum((data ->> 'amount')::bigint)
from batch
group by stream
on conflict (stream) do update set
    events = orders.events + excluded.events,
    amount = orders.amount + excluded.amount;

insert into customers (customer, events, amount)
select data ->> 'customer', count(*), sum((data ->> 'amount')::bigint)
from batch
group by 1
on conflict (customer) do update set
    events = customers.events + excluded.events,
    amount = customers.amount + excluded.amount;
