-- What every batch pays for, made cheaper.

-- How the transaction of a batch goes on after its `begin`, in one statement whose plans are kept:
--
--   * row security that would hide rows is an error;
--   * pg_stat_activity says whose batch it is;
--   * the server looks once a second whether its client is still there, which only one on Linux can in
--     every version;
--   * unless await_disk, the commit waits for neither disk nor replicas. A crash of the server may then
--     take the last batches back, rows and checkpoint together, and they are applied again;
--   * it ends a statement after statement_ms, and a transaction whose client says nothing for silence_ms.
--     Shorter limits of the role or the database stay.
create function highwater.open_batch(
    name text, statement_ms bigint, silence_ms bigint, await_disk boolean)
returns void language plpgsql as $$
begin
    if not await_disk then
        perform set_config('synchronous_commit', 'off', true);
    end if;
    if version() like '%linux%' then
        perform set_config('client_connection_check_interval', '1000', true);
    end if;
    if current_setting('statement_timeout') <> '0' then
        statement_ms := least(statement_ms,
            extract(epoch from current_setting('statement_timeout')::interval) * 1000);
    end if;
    if current_setting('idle_in_transaction_session_timeout') <> '0' then
        silence_ms := least(silence_ms,
            extract(epoch from current_setting('idle_in_transaction_session_timeout')::interval) * 1000);
    end if;
    perform set_config('row_security', 'off', true),
            set_config('application_name', name, true),
            set_config('statement_timeout', statement_ms::text, true),
            set_config('idle_in_transaction_session_timeout', silence_ms::text, true);
end $$;
comment on function highwater.open_batch(text, bigint, bigint, boolean) is
    'Internal: sets what holds for the transaction of a batch.';
