-- Purpose: whether a projection's key is an expression over the columns of a batch: plain, without
-- aggregates or sets, and of a type that is written as text.
-- {events}: the view of the batch; {key}: the expression.
select from {events} where ({key})::text collate "C" is not null
