-- How many ranked examples each source has.
select source, count(*) as examples
from ranks
group by source
order by examples desc, source;
