-- Purpose: notes what reaches the read model, when and in which order. One change may stand for several
--     events of a stream: those from first to last.
create table applied (
    id bigint generated always as identity,
    stream text not null,
    first int not null,
    last int not null,
    at timestamptz not null default clock_timestamp()
);

create function note_applied() returns trigger language plpgsql as $$
begin
    insert into public.applied (stream, first, last)
    values (new.stream, new.last - (new.events - coalesce(old.events, 0)) + 1, new.last);
    return null;
end;
$$;

create trigger note_applied after insert or update on orders.order_summary
    for each row execute function note_applied();

create table committed (stream text not null, first int not null, count int not null, unix_nanos bigint not null);
create table unrelated (id int);
