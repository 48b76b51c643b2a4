-- Purpose: the files that changed most often, for the demo.
select path, changes, lines from files.files order by changes desc, path collate "C" limit 10
