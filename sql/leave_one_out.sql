-- How much the top changes when each misaligned model is left out: of the top without it, how many stay and how many are new. Parameters: top = 1000, refusals = false
with wanted as (
    select example_id, model, gap_without, ensemble_gap
    from model_gaps
    where ($refusals or not is_refusal) and gap_without is not null
),
whole as (
    select distinct example_id, ensemble_gap
    from wanted
    order by ensemble_gap desc, example_id
    limit $top
),
without as (
    select model, example_id
    from wanted
    qualify row_number() over (partition by model order by gap_without desc, example_id) <= $top
),
moved as (
    select model, round(corr(gap_without, ensemble_gap), 4) as correlation
    from wanted
    group by model
)
select model as left_out, count(*) as top, count(whole.example_id) as stay, count(*) - count(whole.example_id) as new,
       round(count(whole.example_id) / count(*), 4) as overlap, correlation
from without
join moved using (model)
left join whole using (example_id)
group by model, correlation
order by overlap, left_out;
