-- The share of refusals among the first k of the ranking, at depths k about a tenth apart from 10 on.
with counted as (
    select rank, sum(is_refusal::int) over (order by rank) as refusals from ranks
),
depths as (
    select distinct least(round(10 ^ (step / 20.0)), (select count(*) from ranks))::bigint as rank
    from range(20, 181) steps(step)
)
select rank as depth, refusals::bigint as refusals, refusals / rank as share
from counted
join depths using (rank)
order by depth;
