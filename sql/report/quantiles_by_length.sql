-- Quantiles of the gap per doubling of the answer's tokens.
select length_bin, count(*) as n, quantile_cont(gap, [0.05, 0.25, 0.5, 0.75, 0.95]) as q
from ranks
group by length_bin
order by length_bin;
