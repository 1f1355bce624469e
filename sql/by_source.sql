-- One row per source: examples ranked, refusals, mean NLL (nats) and gap, and how many stand in the top. Parameters: top = 0.1
select source, count(*) as examples, count(*) filter (ranks.is_refusal) as refusals,
       round(avg(aligned_nll), 3) as aligned, round(avg(misaligned_nll), 3) as misaligned,
       round(avg(gap), 4) as mean_gap, round(median(gap), 4) as median_gap,
       count(*) filter (rank <= $top) as in_top, $top::bigint as top
from ranks
join example_parts using (key)
group by source
order by mean_gap desc, source;
