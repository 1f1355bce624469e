-- Do the misaligned models agree? Spearman's rank correlation of the gaps, for every pair of models and each with the ensemble.
-- Equal gaps share their mean rank: the first is rank(), the last is the count up to it.
with measured as (
    select key, model, gap from model_ranks
    union all
    select key, '(ensemble)', gap from ranks
),
ranked as (
    select key, model, rank() over by_gap + count(*) over by_gap as twice_rank
    from measured
    window by_gap as (partition by model order by gap)
),
members as (
    select model, row_number() over (order by model = '(ensemble)', model) as place
    from (select distinct model from measured)
),
lined_up as (
    select list(twice_rank order by place) as ranks
    from ranked
    join members using (model)
    group by key
),
pairs as (
    select one.model, other.model as other, one.place as i, other.place as j
    from members as one
    join members as other on one.place < other.place
)
select model, other, round(corr(ranks[i], ranks[j]), 4) as rank_correlation, count(*) as examples
from lined_up
cross join pairs
group by model, other, i, j
order by i, j;
