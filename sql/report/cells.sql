-- Every ranked example counted by gap, length, source and refusal: what lies outside the axis counts at its ends.
select least(greatest(floor((gap - $low) / $step), 0), $bins - 1)::int as gap_bin, length_bin, label, is_refusal,
       count(*) as n
from ranks
join labels using (source)
group by all
order by all;
