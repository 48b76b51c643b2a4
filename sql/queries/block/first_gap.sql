-- Purpose: the first range of a log that no block covers: where it begins, and where the next block does.
-- Parameters: $1 the source's identity; $2 where to begin; $3 the end.
-- Must hold: blocks may overlap; no row if they cover everything.
with ordered as (
    select b.after, b.through,
           greatest($2, max(b.through) over (order by b.after
                        rows between unbounded preceding and 1 preceding)) as covered
      from highwater.block b
     where b.source_identity = $1 and b.through > $2 and b.after < $3
), gap as (
    select o.covered as after, o.after as through from ordered o where o.after > o.covered
    union all
    select greatest($2, max(o.through)), $3 from ordered o
)
select g.after, g.through from gap g where g.after < g.through order by g.after limit 1
