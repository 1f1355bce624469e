-- Examples on which the ensemble splits: the largest distance between the gaps of two of its models. Parameters: top = 20
with split as (
    select example_id, max(gap) - min(gap) as spread, min(gap) as lowest, max(gap) as highest,
           min_by(model, (gap, model)) as lowest_model, max_by(model, (gap, model)) as highest_model
    from model_gaps
    group by example_id
    order by spread desc, example_id
    limit $top
)
select round(spread, 4) as spread, round(lowest, 4) as lowest, lowest_model, round(highest, 4) as highest,
       highest_model, gaps.rank, round(gaps.gap, 4) as gap, prompt, answer, example_id
from split
join gaps using (example_id)
order by spread desc, example_id;
