-- Purpose: the authors with the most commits, for the demo.
select author, sum(commits) as commits, sum(files_changed) as files_changed,
    min(month) as first_month, max(month) as last_month
from authors.authors group by author order by sum(commits) desc, author collate "C" limit 10
