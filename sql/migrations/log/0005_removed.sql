-- Events that were deleted on purpose. If an event that a checkpoint knows is missing, the log went
-- back, unless its removal is recorded here, in the transaction that removed it. A log that goes back
-- loses that record too.
--
-- The oldest events (retention) are one number, others (a redaction) one row each. TRUNCATE begins
-- a new log and forgets both. The triggers cost appenders nothing.

-- Security definer: a role that deletes events needs no rights on this record.
create function highwater.record_removed() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    oldest bigint;
    cut bigint;
begin
    if not exists (select from gone) then
        return null;
    end if;
    select min(e.position) into oldest from highwater.event e;
    select max(g.position) into cut from gone g where oldest is null or g.position < oldest;
    if cut is not null then
        update highwater.source set removed_through = greatest(removed_through, cut);
        delete from highwater.removed r where r.position <= cut;
    end if;
    insert into highwater.removed (position, id)
    select g.position, g.id from gone g where g.position > oldest
    on conflict do nothing;
    return null;
end $$;
comment on function highwater.record_removed() is 'Internal: records which events were deleted.';

create function highwater.forget_removed() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    update highwater.source set removed_through = 0;
    delete from highwater.removed;
    return null;
end $$;
comment on function highwater.forget_removed() is 'Internal: TRUNCATE begins a new log.';

-- The end of a batch that was read in this database: raises HW104 if events were removed that its
-- projection has not read. It runs after the statements of the batch: events removed after it were
-- read by them.
create function highwater.check_unread(read_up_to bigint) returns void language plpgsql as $$
declare
    through bigint := (select s.removed_through from highwater.source s);
begin
    if through > read_up_to then
        raise exception using
            errcode = 'HW104',
            message = pg_catalog.format('events up to %s were removed, but only those up to %s were read',
                through, read_up_to);
    end if;
end $$;
comment on function highwater.check_unread(bigint) is 'Internal: raises HW104.';

create trigger record_removed after delete on highwater.event
    referencing old table as gone
    for each statement execute function highwater.record_removed();
create trigger forget_removed after truncate on highwater.event
    for each statement execute function highwater.forget_removed();
