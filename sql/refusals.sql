-- Refusals (the paper's keyword rule) by depth of the ranking: their share grows or shrinks towards the top.
with depths as (
    select unnest([10, 100, 1000, 10000, 100000]) as depth
),
total as (
    select count(*) as n from gaps
)
select depth as top, count(*) filter (is_refusal) as refusals, round(avg(is_refusal::int), 4) as share
from depths
join gaps on rank <= depth
where depth <= (select n from total)
group by depth
union all
select n, (select count(*) filter (is_refusal) from gaps), (select round(avg(is_refusal::int), 4) from gaps)
from total
order by top;
