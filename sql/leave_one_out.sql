-- How much the top changes when each misaligned model is left out: of the top without it, how many stay and how many are new. Parameters: top = 0.1, refusals = false
with wanted as materialized (
    select key, model, gap_without, ensemble_gap
    from model_ranks
    where ($refusals or not is_refusal) and gap_without is not null
),
whole as (
    select distinct key, ensemble_gap
    from wanted
    order by ensemble_gap desc, key
    limit $top
),
without as (
    select model, key
    from wanted
    qualify row_number() over (partition by model order by gap_without desc, key) <= $top
),
moved as (
    select model, round(corr(gap_without, ensemble_gap), 4) as correlation
    from wanted
    group by model
)
select model as left_out, count(*) as top, count(whole.key) as stay, count(*) - count(whole.key) as new,
       round(count(whole.key) / count(*), 4) as overlap, correlation
from without
join moved using (model)
left join whole using (key)
group by model, correlation
order by overlap, left_out;
