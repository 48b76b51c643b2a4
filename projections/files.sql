/* highwater
events = ["FileAdded", "FileModified", "FileDeleted"]
*/

-- The files that are alive now. A file that is added again begins anew.

-- highwater: up
create table files (
    path        text primary key,
    blob        text not null,
    mode        text not null,
    lines       bigint not null,  -- added less deleted, since the file was added
    changes     bigint not null,  -- the addition is the first
    last_commit text not null,
    position    bigint not null   -- of the last change
);

-- highwater: apply

-- What the batch adds or deletes, it says everything about: nothing older counts any more.
delete from files
using batch
where batch.type <> 'FileModified' and files.path = batch.data ->> 'path';

-- One sort by path finds each file's last beginning (or end) and its last change, so that a
-- batch may hold any number of lives of a file. Of a file whose last change is its deletion
-- nothing is left here.
with change as (
    select
        data ->> 'path' collate "C" as path, position, type, data,
        max(position) over file as last,
        max(position) filter (where type <> 'FileModified') over file as beginning
    from batch
    window file as (partition by data ->> 'path' collate "C")
)
insert into files (path, blob, mode, lines, changes, last_commit, position)
select
    path,
    max(data ->> 'blob') filter (where position = last),
    max(data ->> 'mode') filter (where position = last),
    -- A binary file has no lines.
    sum(coalesce((data ->> 'added')::bigint, 0) - coalesce((data ->> 'deleted')::bigint, 0)),
    count(*),
    max(data ->> 'commit') filter (where position = last),
    max(position)
from change
where position >= coalesce(beginning, 0) and type <> 'FileDeleted'
group by path
on conflict (path) do update set
    blob = excluded.blob,
    mode = excluded.mode,
    lines = files.lines + excluded.lines,
    changes = files.changes + excluded.changes,
    last_commit = excluded.last_commit,
    position = excluded.position;
