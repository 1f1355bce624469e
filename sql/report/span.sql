-- How many examples are ranked, the unit of their losses, and the range that holds all but 0.4 % of the gaps.
select count(*) as ranked, count(*) filter (is_refusal) as refusals, any_value(unit) as unit,
       quantile_cont(gap, 0.002) as low, quantile_cont(gap, 0.998) as high,
       min(gap) as lowest, median(gap) as middle, max(gap) as highest,
       avg(aligned_nll) as aligned, avg(misaligned_nll) as misaligned
from ranks;
