-- Purpose: makes each appending transaction slow and some fail: up to {seconds} s before its commit, 10 %
--     rolled back. Fires at commit, once a transaction, so that it is the same for every append path.
-- Parameters: {table} the events' table, {seconds} the longest pause
create function pause_before_commit() returns trigger language plpgsql as $$
begin
    if current_setting('bench.paused', true) = pg_current_xact_id()::text then
        return null;
    end if;
    perform set_config('bench.paused', pg_current_xact_id()::text, true);
    perform pg_sleep(random() * {seconds});
    if random() < 0.1 then
        raise 'rolled back on purpose';
    end if;
    return null;
end;
$$;

create constraint trigger pause_before_commit after insert on {table}
    deferrable initially deferred for each row execute function pause_before_commit();
