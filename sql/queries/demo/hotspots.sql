-- Purpose: the pairs of files that changed together most often, for the demo.
select path, other, together
from hotspots.hotspot_pairs order by together desc, path collate "C", other collate "C" limit 10
