-- Quantiles of the gap per source label.
select label as name, count(*) as n, quantile_cont(gap, [0.05, 0.25, 0.5, 0.75, 0.95]) as q
from ranks
join labels using (source)
group by label
order by q[3] desc, label;
