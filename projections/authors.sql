/* highwater
events = ["CommitRecorded", "FileAdded", "FileModified", "FileDeleted"]
# Rows of different authors never meet, so partitions may be raised.
key = "data ->> 'author'"
*/

-- What each author did in each month (UTC, by the time of the commit).

-- highwater: up
create table authors (
    author        text not null,
    month         date not null,    -- its first day
    commits       bigint not null,
    files_changed bigint not null,  -- a file counts once for each commit
    lines_added   bigint not null,
    lines_deleted bigint not null,
    primary key (author, month)
);

-- highwater: apply
insert into authors (author, month, commits, files_changed, lines_added, lines_deleted)
select
    data ->> 'author',
    date_trunc('month', coalesce((metadata ->> 'occurred_at')::timestamptz, recorded_at)
        at time zone 'UTC')::date,
    count(*) filter (where type = 'CommitRecorded'),
    count(*) filter (where type <> 'CommitRecorded'),
    coalesce(sum((data ->> 'added')::bigint), 0),
    coalesce(sum((data ->> 'deleted')::bigint), 0)
from batch
group by 1, 2
on conflict (author, month) do update set
    commits = authors.commits + excluded.commits,
    files_changed = authors.files_changed + excluded.files_changed,
    lines_added = authors.lines_added + excluded.lines_added,
    lines_deleted = authors.lines_deleted + excluded.lines_deleted;
