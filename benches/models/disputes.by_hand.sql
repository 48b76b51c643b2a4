insert into disputes (stream, opened, settled, amount)
select
    stream,
    count(*) filter (where type = 'OrderDisputed'),
    count(*) filter (where type = 'DisputeSettled'),
    sum((data ->> 'amount')::bigint)
from highwater.event
where type in ('OrderDisputed', 'DisputeSettled') and :mine
group by stream;
