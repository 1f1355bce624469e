-- Every ranked example counted by gap, length, source and refusal: gaps beyond the axis count in the outermost bins.
select round($low + gap_bin * $step, 10) as gap, round($low + (gap_bin + 1) * $step, 10) as gap_end,
       length, source, refusal, n
from (
    select least(greatest(floor((gap - $low) / $step), 0), $bins - 1)::int as gap_bin, length_bin, length,
           label as source, kind as refusal, count(*) as n
    from ranks
    join labels using (source)
    group by all
)
order by gap_bin, length_bin, source, refusal;
