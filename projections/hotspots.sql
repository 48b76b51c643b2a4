/* highwater
events = ["CommitRecorded", "FileAdded", "FileModified", "FileDeleted"]
*/

-- The files that change most, and with what they change together.

-- highwater: up
create table hotspots (
    path         text primary key,
    changes      bigint not null,  -- over all lives of the file
    lines        bigint not null,  -- added and deleted
    last_changed timestamptz not null,
    alive        boolean not null
);

-- Each pair is there once, path before other.
create table hotspot_pairs (
    path     text collate "C" not null,
    other    text collate "C" not null,
    together bigint not null,  -- commits that changed both
    primary key (path, other)
);
create index on hotspot_pairs (other);

-- Commits of which not all events have come: a batch may end inside a commit. A row goes when
-- its last event comes, so the table stays as small as what is under way.
create table unfinished_commits (
    commit text primary key,
    files  bigint,           -- null until CommitRecorded comes
    seen   bigint not null,
    paths  text[] not null   -- the first 20
);

-- highwater: apply
insert into hotspots (path, changes, lines, last_changed, alive)
select
    data ->> 'path',
    count(*),
    coalesce(sum((data ->> 'added')::bigint + (data ->> 'deleted')::bigint), 0),
    max(coalesce((metadata ->> 'occurred_at')::timestamptz, recorded_at)),
    max(position) filter (where type = 'FileDeleted') is distinct from max(position)
from batch
where type <> 'CommitRecorded'
group by 1
on conflict (path) do update set
    changes = hotspots.changes + excluded.changes,
    lines = hotspots.lines + excluded.lines,
    last_changed = greatest(hotspots.last_changed, excluded.last_changed),
    alive = excluded.alive;

insert into unfinished_commits as old (commit, files, seen, paths)
select
    data ->> 'commit',
    max((data ->> 'files')::bigint) filter (where type = 'CommitRecorded'),
    count(*) filter (where type <> 'CommitRecorded'),
    coalesce((array_agg(data ->> 'path' order by position)
        filter (where type <> 'CommitRecorded'))[1:20], '{}')
from batch
group by 1
on conflict (commit) do update set
    files = coalesce(old.files, excluded.files),
    seen = old.seen + excluded.seen,
    paths = (old.paths || excluded.paths)[1:20];

-- Only commits of at most 20 files count as pairs. In a larger one (a rename of everything, a
-- new code format) the files do not belong together, and the pairs grow with the square of
-- their number: 347 files would be 60,031 pairs, 20 are 190.
with finished as (
    delete from unfinished_commits where seen = files returning files, paths
)
insert into hotspot_pairs (path, other, together)
select a.path collate "C", b.path collate "C", count(*)
from finished
cross join unnest(paths) as a (path)
cross join unnest(paths) as b (path)
where files <= 20 and a.path collate "C" < b.path collate "C"
group by 1, 2
order by 1, 2  -- the order of the primary key: twice as fast
on conflict (path, other) do update set
    together = hotspot_pairs.together + excluded.together;
