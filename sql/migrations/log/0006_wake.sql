-- The wake: the only NOTIFY about events, sent after the commit of an append.

create function highwater.wake("position" bigint default null) returns void language sql as $$
    select pg_notify('highwater_wake', coalesce("position"::text, ''))
$$;
comment on function highwater.wake(bigint) is
    'Tells the engines that listen that events were appended. Only a hint: they poll too. Call it '
    'after the commit of the append, in a transaction of its own: a NOTIFY holds a lock of the whole '
    'cluster while its transaction commits.';
