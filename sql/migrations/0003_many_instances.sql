-- Many instances: partitions with their leases, the ledger, parked keys, pause.

alter table highwater.projection
    add column partitions integer not null default 1 check (partitions between 1 and 1024),
    add column cut_by text,
    add column paused_at timestamptz;
comment on column highwater.projection.partitions is
    'How many partitions the projection is to have; its checkpoints follow once all are at one position.';
comment on column highwater.projection.cut_by is
    'The key of the live generation, by which its partitions are cut; null until it runs.';
comment on column highwater.projection.paused_at is
    'Since when an operator holds it, on all instances; null if it runs.';

alter table highwater.instance
    add column projections text[] not null default '{}',
    add column joined_at timestamptz not null default clock_timestamp();
comment on column highwater.instance.projections is
    'What it can run: the partitions are shared out among the living instances that can.';
comment on column highwater.instance.joined_at is
    'Since when it has been alive without a break: partitions are dealt in this order.';

alter table highwater.checkpoint
    add column partitions integer not null default 1,
    add column layout integer not null default 1,
    add column drain_at bigint,
    add column stopped_at timestamptz,
    add column parking bigint not null default 0,
    add column counted_from bigint not null default 0,
    add column scanned bigint not null default 0,
    add column applied bigint not null default 0,
    add column filtered bigint not null default 0,
    add column parked bigint not null default 0,
    add column discarded bigint not null default 0;
update highwater.checkpoint
   set counted_from = position,
       stopped_at = case when state = 'stopped' then updated_at end;
alter table highwater.checkpoint
    add check (partition >= 0 and partition < partitions),
    add check (drain_at >= position),
    add check (scanned = applied + filtered + parked + discarded),
    add check (least(scanned, applied, filtered, parked, discarded) >= 0);
comment on column highwater.checkpoint.partitions is
    'Of how many partitions this is one: keys whose highwater.partition_of(key, partitions) is its number.';
comment on column highwater.checkpoint.layout is
    'Rises with each change of the number of partitions.';
comment on column highwater.checkpoint.drain_at is
    'Where the partitions of this layout end and those of the next begin; null if no change is on its way.';
comment on column highwater.checkpoint.stopped_at is
    'When an error stopped it. An instance that began after that may try again, no other.';
comment on column highwater.checkpoint.parking is
    'Rises whenever keys are parked or set free; the fence compares it with what its runner knows.';
comment on column highwater.checkpoint.counted_from is
    'The ledger counts the events of the log in (counted_from, position]: scanned of whatever type and
partition; applied, parked and discarded of its own; filtered are the others.';

-- The ledgers of partitions that are no more, as they stood when the number of partitions changed.
create table highwater.ledger (
    projection   text not null references highwater.projection (name) on delete cascade,
    generation   integer not null,
    layout       integer not null,
    partition    integer not null,
    partitions   integer not null,
    counted_from bigint not null,
    counted_to   bigint not null,
    scanned      bigint not null,
    applied      bigint not null,
    filtered     bigint not null,
    parked       bigint not null,
    discarded    bigint not null,
    primary key (projection, generation, layout, partition),
    check (scanned = applied + filtered + parked + discarded),
    check (least(scanned, applied, filtered, parked, discarded) >= 0)
);

-- Events that were set aside: one that could not be applied, and those of its key that came after
-- it. They are copies, so that they can be looked at and tried again whatever becomes of the log.
create table highwater.dead_letter (
    projection         text not null references highwater.projection (name) on delete cascade,
    generation         integer not null,
    position           bigint not null,
    key                text,
    layout             integer not null,
    partition          integer not null,
    id                 uuid not null,
    stream             text not null,
    version            bigint not null,
    type               text not null,
    data               jsonb not null,
    metadata           jsonb not null,
    recorded_at        timestamptz not null,
    error              jsonb,
    fingerprint        text,
    attempts           integer not null default 0,
    parked_at          timestamptz not null default clock_timestamp(),
    retry_requested_at timestamptz,
    primary key (projection, generation, position)
);
comment on column highwater.dead_letter.key is
    'The parked key; null is the key null. Its letters are tried again in the order of their positions.';
comment on column highwater.dead_letter.layout is
    'With partition: in whose ledger it is counted as parked.';
comment on column highwater.dead_letter.error is
    'Why it could not be applied; null for one that only follows another of its key.';
comment on column highwater.dead_letter.fingerprint is
    'What is alike in errors of one cause.';
create index on highwater.dead_letter (projection, generation, key, position);
create index on highwater.dead_letter (projection, generation, position)
    where retry_requested_at is not null;

-- The highest epochs of projections that were dropped: one that is made again under the name goes on
-- from there.
create table highwater.dropped (
    projection text primary key,
    epoch      bigint not null
);

-- What was given up, by whom and why.
create table highwater.discarded (
    projection   text not null,
    generation   integer not null,
    position     bigint not null,
    key          text,
    id           uuid not null,
    stream       text not null,
    version      bigint not null,
    type         text not null,
    error        jsonb,
    attempts     integer not null,
    parked_at    timestamptz not null,
    reason       text not null check (reason <> ''),
    discarded_by text not null default current_user,
    discarded_at timestamptz not null default clock_timestamp()
);
create index on highwater.discarded (projection, position);

-- Which of so many partitions a key belongs to; the key null belongs to the first. PostgreSQL's own
-- hash partitioning relies on this hash staying as it is, and so do the checkpoints.
create function highwater.partition_of(key text, partitions integer) returns integer
language sql immutable parallel safe
return coalesce(((hashtextextended(key collate "C", 0) & 9223372036854775807) % partitions)::integer, 0);

drop function highwater.advance(text, integer, integer, bigint, bigint, bigint, bigint, uuid);

-- The fence. It is the first statement of every transaction that writes a read model: it moves
-- the checkpoint if it still stands where the batch begins, under the epoch of the caller and with
-- the parked keys that the caller knows of, and raises HW101 otherwise, so that nothing sent after
-- it can commit. It moves the ledger: of the events scanned, so many were this partition's own and
-- so many of these are set aside. It also says what the view "batch" shows for the rest of the
-- transaction.
create function highwater.advance(
    projection text, generation integer, partition integer, epoch bigint, parking bigint,
    after bigint, through bigint, event_position bigint, event_id uuid,
    scanned bigint, own bigint, aside bigint
) returns void language plpgsql as $$
declare
    moved highwater.checkpoint;
begin
    update highwater.checkpoint c
       set position = advance.through,
           event_position = coalesce(advance.event_position, c.event_position),
           event_id = coalesce(advance.event_id, c.event_id),
           scanned = c.scanned + advance.scanned,
           applied = c.applied + advance.own - advance.aside,
           filtered = c.filtered + advance.scanned - advance.own,
           parked = c.parked + advance.aside,
           last_error = null,
           updated_at = clock_timestamp()
     where c.projection = advance.projection
       and c.generation = advance.generation
       and c.partition = advance.partition
       and c.epoch = advance.epoch
       and c.parking = advance.parking
       and c.position = advance.after
       and advance.through >= c.position
       and advance.through <= coalesce(c.drain_at, advance.through)
    returning * into moved;
    if not found then
        raise exception using
            errcode = 'HW101',
            message = pg_catalog.format('the checkpoint of "%s" is not at position %s under epoch %s any more',
                             advance.projection, advance.after, advance.epoch);
    end if;
    perform highwater.show_batch(moved, advance.after, advance.through, false);
end
$$;

-- Says what the views "batch" show until the transaction ends. `again` shows parked keys too.
create function highwater.show_batch(
    moved highwater.checkpoint, after bigint, through bigint, again boolean
) returns void language plpgsql as $$
begin
    perform set_config('highwater.after', show_batch.after::text, true),
            set_config('highwater.through', show_batch.through::text, true);
    if moved.partitions > 1 then
        perform set_config('highwater.partition', moved.partition::text, true),
                set_config('highwater.partitions', moved.partitions::text, true);
    end if;
    -- Not moved.parked: a key may have been parked by a partition that is no more.
    if not again and exists (select from highwater.dead_letter d
                              where d.projection = moved.projection
                                and d.generation = moved.generation) then
        perform set_config('highwater.projection', moved.projection, true),
                set_config('highwater.generation', moved.generation::text, true);
    end if;
end
$$;

-- Whether a key is among those of the batch at hand: its partition's own, and not parked.
create function highwater.in_batch(key text) returns boolean language sql stable parallel safe
return case when coalesce(current_setting('highwater.partitions', true), '') = '' then true
            else highwater.partition_of(key, current_setting('highwater.partitions', true)::integer)
                 = current_setting('highwater.partition', true)::integer end
   and case when coalesce(current_setting('highwater.projection', true), '') = '' then true
            else not exists (
                select from highwater.dead_letter d
                 where d.projection = current_setting('highwater.projection', true)
                   and d.generation = current_setting('highwater.generation', true)::integer
                   and d.key is not distinct from in_batch.key) end;

-- Whether all keys are, so that nothing needs to be asked of each.
create function highwater.batch_is_whole() returns boolean language sql stable parallel safe
return coalesce(current_setting('highwater.partitions', true), '') = ''
   and coalesce(current_setting('highwater.projection', true), '') = '';

-- The fence of a dead letter that is tried again: the checkpoint stays where it is, the letter is
-- counted as applied by highwater.settle.
create function highwater.redrive(
    projection text, generation integer, partition integer, epoch bigint, parking bigint,
    letter bigint
) returns void language plpgsql as $$
declare
    moved highwater.checkpoint;
begin
    update highwater.checkpoint c
       set last_error = null, updated_at = clock_timestamp()
     where c.projection = redrive.projection
       and c.generation = redrive.generation
       and c.partition = redrive.partition
       and c.epoch = redrive.epoch
       and c.parking = redrive.parking
    returning * into moved;
    if not found then
        raise exception using
            errcode = 'HW101',
            message = pg_catalog.format('the checkpoint of "%s" is not under epoch %s any more',
                             redrive.projection, redrive.epoch);
    end if;
    perform highwater.show_batch(moved, redrive.letter - 1, redrive.letter, true),
            set_config('highwater.letter', redrive.letter::text, true),
            set_config('highwater.letter_of', moved.projection, true),
            set_config('highwater.letter_generation', moved.generation::text, true);
end
$$;

-- While a letter is tried again the views "batch" show that one, and nothing of the log: the event may
-- have been removed since, or be of a type that is not wanted any more.
create or replace function highwater.batch_after() returns bigint
language sql stable parallel safe
return case when coalesce(current_setting('highwater.letter', true), '') = ''
            then nullif(current_setting('highwater.after', true), '')::bigint end;

-- A function of its own, so that who reads a batch needs no right on the letters.
create function highwater.batch_letter() returns setof highwater.dead_letter
language plpgsql stable parallel safe rows 1 as $$
begin
    if coalesce(current_setting('highwater.letter', true), '') = '' then
        return;
    end if;
    return query
    select d.* from highwater.dead_letter d
     where d.projection = current_setting('highwater.letter_of')
       and d.generation = current_setting('highwater.letter_generation')::integer
       and d.position = current_setting('highwater.letter')::bigint;
end
$$;

-- A dead letter leaves: it was applied (`fate` = 'applied') or is given up ('discarded'). Its ledger
-- moves, and so does `parking` of the partition that its key belongs to if it was the key's last.
-- The caller holds the lock on that partition's checkpoint.
create function highwater.settle(
    projection text, generation integer, letter bigint, fate text
) returns void language plpgsql as $$
declare
    gone highwater.dead_letter;
begin
    delete from highwater.dead_letter d
     where d.projection = settle.projection and d.generation = settle.generation
       and d.position = settle.letter
    returning * into gone;
    if not found then
        raise exception using
            errcode = 'HW101',
            message = pg_catalog.format('"%s" has no dead letter at position %s any more',
                             settle.projection, settle.letter);
    end if;
    -- A key is tried again as a whole: the next of its letters is asked for too.
    update highwater.dead_letter d
       set retry_requested_at = gone.retry_requested_at
     where gone.retry_requested_at is not null and d.retry_requested_at is null
       and d.projection = gone.projection and d.generation = gone.generation
       and d.position = (select min(n.position) from highwater.dead_letter n
                          where n.projection = gone.projection
                            and n.generation = gone.generation
                            and (n.key = gone.key or gone.key is null and n.key is null));
    update highwater.checkpoint c
       set parked = c.parked - 1,
           applied = c.applied + (settle.fate = 'applied')::integer,
           discarded = c.discarded + (settle.fate = 'discarded')::integer
     where c.projection = gone.projection and c.generation = gone.generation
       and c.layout = gone.layout and c.partition = gone.partition
       -- A ledger that began anew since knows nothing of it.
       and gone.position > c.counted_from;
    if not found then
        update highwater.ledger l
           set parked = l.parked - 1,
               applied = l.applied + (settle.fate = 'applied')::integer,
               discarded = l.discarded + (settle.fate = 'discarded')::integer
         where l.projection = gone.projection and l.generation = gone.generation
           and l.layout = gone.layout and l.partition = gone.partition
           and gone.position > l.counted_from;
    end if;
    if not exists (select from highwater.dead_letter d
                    where d.projection = gone.projection and d.generation = gone.generation
                      and (d.key = gone.key or gone.key is null and d.key is null)) then
        update highwater.checkpoint c
           set parking = c.parking + 1
         where c.projection = gone.projection and c.generation = gone.generation
           and c.partition = highwater.partition_of(gone.key, c.partitions);
    end if;
end
$$;

-- Raises HW103 if more is parked than may be: the last statement of a transaction that sets events
-- aside.
create function highwater.check_parked(
    projection text, generation integer, keys_max bigint, letters_max bigint
) returns void language plpgsql as $$
declare
    keys bigint;
    letters bigint;
begin
    select count(distinct d.key) + coalesce(max((d.key is null)::integer), 0), count(*)
      into keys, letters
      from highwater.dead_letter d
     where d.projection = check_parked.projection and d.generation = check_parked.generation;
    if keys > keys_max then
        raise exception using
            errcode = 'HW103',
            message = pg_catalog.format('more keys of "%s" would be parked than engine.parked_keys_max = %s',
                             check_parked.projection, keys_max);
    end if;
    if letters > letters_max then
        raise exception using
            errcode = 'HW103',
            message = pg_catalog.format('more events of "%s" would be set aside than engine.dead_letters_max = %s',
                             check_parked.projection, letters_max);
    end if;
end
$$;

-- Brings the number of partitions to what projection.partitions says. The first call decides where
-- the layout ends, at the highest of its checkpoints; none passes it then. Once all stand there, a
-- call puts the partitions of the next layout in their place. Says whether it did anything.
-- Must hold: all checkpoints are locked, after the projection's row and in the order of partitions,
-- so that no batch is in flight meanwhile. Batches in flight are waited for, or the change would never
-- come about under load: 1 s for each, 5 s for all. Beyond that it does nothing and lets go of what it
-- has, for who calls it has other things to look after, and calls it again.
create function highwater.repartition(projection text) returns boolean
language plpgsql set lock_timeout = '1s' as $$
declare
    wanted highwater.projection;
    highest highwater.checkpoint;
    behind boolean;
    latest timestamptz := clock_timestamp() + interval '5 s';
begin
    begin
        select p.* into wanted from highwater.projection p
         where p.name = repartition.projection for no key update;
        if not found then return false; end if;
        -- One statement each, which sees what was committed while an earlier one waited.
        for n in 0 .. (select coalesce(max(c.partition), -1) from highwater.checkpoint c
                        where c.projection = wanted.name and c.generation = wanted.generation) loop
            if clock_timestamp() > latest then return false; end if;
            perform from highwater.checkpoint c
              where c.projection = wanted.name and c.generation = wanted.generation
                and c.partition = n for update;
        end loop;
    exception when lock_not_available then
        return false;
    end;
    select c.* into highest from highwater.checkpoint c
     where c.projection = wanted.name and c.generation = wanted.generation
     order by c.position desc, c.event_position desc nulls last limit 1;
    if not found then return false; end if;
    if highest.drain_at is null then
        if highest.partitions = wanted.partitions then return false; end if;
        update highwater.checkpoint c set drain_at = highest.position
         where c.projection = wanted.name and c.generation = wanted.generation;
    end if;
    select bool_or(c.position < c.drain_at) into behind from highwater.checkpoint c
     where c.projection = wanted.name and c.generation = wanted.generation;
    if behind then return highest.drain_at is null; end if;
    insert into highwater.ledger (projection, generation, layout, partition, partitions, counted_from,
                                  counted_to, scanned, applied, filtered, parked, discarded)
    select c.projection, c.generation, c.layout, c.partition, c.partitions, c.counted_from,
           c.position, c.scanned, c.applied, c.filtered, c.parked, c.discarded
      from highwater.checkpoint c
     where c.projection = wanted.name and c.generation = wanted.generation;
    select max(c.epoch), max(c.parking) into highest.epoch, highest.parking
      from highwater.checkpoint c
     where c.projection = wanted.name and c.generation = wanted.generation;
    delete from highwater.checkpoint c
     where c.projection = wanted.name and c.generation = wanted.generation;
    insert into highwater.checkpoint (projection, generation, partition, partitions, layout, position,
        event_position, event_id, source_identity, epoch, parking, counted_from)
    select wanted.name, wanted.generation, n, wanted.partitions, highest.layout + 1,
           highest.position, highest.event_position, highest.event_id, highest.source_identity,
           highest.epoch + 1, highest.parking + 1, highest.position
      from generate_series(0, wanted.partitions - 1) n;
    return true;
end
$$;

-- What was removed from the log on purpose. An event that a checkpoint knows and that is gone means
-- that the log went back, unless its removal is written down here, in the transaction that removed
-- it: a log that goes back takes that record along.
--
-- The oldest events (retention) are one number, others (a redaction) one row each. TRUNCATE begins
-- a new log and forgets both. The triggers cost appenders nothing.

alter table highwater.source
    add column removed_through bigint not null default 0 check (removed_through >= 0);
comment on column highwater.source.removed_through is
    'The oldest events, up to this position, were deleted; 0 if none were. A projection that has not '
    'read them is stranded.';

create table highwater.removed (
    position bigint primary key,
    removed_at timestamptz not null default clock_timestamp()
);
comment on table highwater.removed is
    'Positions above highwater.source.removed_through whose events were deleted.';

-- A definer's function, for who deletes events need not have rights on the record of it.
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
    insert into highwater.removed (position)
    select g.position from gone g where g.position > oldest
    on conflict do nothing;
    return null;
end $$;
comment on function highwater.record_removed() is 'Internal: writes down which events were deleted.';

create function highwater.forget_removed() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    update highwater.source set removed_through = 0;
    delete from highwater.removed;
    return null;
end $$;
comment on function highwater.forget_removed() is 'Internal: TRUNCATE begins a new log.';

-- The end of a batch that was read in this database: raises HW104 if events were removed that its
-- projection has not read. It follows the statements that read, so that what is removed after it was
-- read by them.
create function highwater.check_unread(read_up_to bigint) returns void language plpgsql as $$
declare
    through bigint := (select s.removed_through from highwater.source s);
begin
    if through > read_up_to then
        raise exception using
            errcode = 'HW104',
            message = pg_catalog.format('events up to %s were removed, of which %s was the last read',
                through, read_up_to);
    end if;
end $$;
comment on function highwater.check_unread(bigint) is 'Internal: raises HW104.';

create trigger record_removed after delete on highwater.event
    referencing old table as gone
    for each statement execute function highwater.record_removed();
create trigger forget_removed after truncate on highwater.event
    for each statement execute function highwater.forget_removed();
