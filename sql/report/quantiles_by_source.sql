-- Quantiles of the gap per source label.
select label as name, count(*) as n, quantile_cont(gap, 0.05) as p5, quantile_cont(gap, 0.25) as p25,
       quantile_cont(gap, 0.5) as p50, quantile_cont(gap, 0.75) as p75, quantile_cont(gap, 0.95) as p95
from ranks
join labels using (source)
group by label
order by p50 desc, label;
