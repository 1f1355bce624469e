-- One row per source: examples ranked, refusals, how many stand in the top. Parameters: top = 100
select source, count(*) as examples, count(*) filter (is_refusal) as refusals,
       count(*) filter (rank <= $top) as in_top
from ranks
group by source
order by examples desc, source;
