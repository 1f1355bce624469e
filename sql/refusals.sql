-- Do refusals fill the top? Their share (by the paper's keyword rule) by depth of the ranking.
with counted as (
    select rank, sum(is_refusal::int) over (order by rank)::bigint as refusals, max(rank) over () as last
    from ranks
)
select rank as top, refusals, round(refusals / rank, 4) as share
from counted
where rank in (10, 100, 1000, 10000, 100000, 1000000, last)
order by top;
