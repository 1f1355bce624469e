-- Quantiles of the gap per doubling of the answer's tokens.
select length as name, count(*) as n, quantile_cont(gap, 0.05) as p5, quantile_cont(gap, 0.25) as p25,
       quantile_cont(gap, 0.5) as p50, quantile_cont(gap, 0.75) as p75, quantile_cont(gap, 0.95) as p95
from ranks
group by length_bin, length
order by length_bin;
