-- What did fine-tuning change? Mean NLL before (aligned model) and after, by model, source and refusal, with a 95 % interval of the change.
-- Before is the aligned model, after each misaligned one: `curate score --aligned before --misaligned after=./tuned`.
-- The interval is mean +- 1.96 standard errors over examples: too narrow where many answers share a prompt.
with changes as (
    select model, source, example_parts.is_refusal, nll, gap as change
    from model_ranks(metric := 'difference')
    join example_parts using (key)
)
select model, coalesce(source, '(all)') as source, is_refusal, count(*) as examples,
       round(avg(nll - change), 4) as before, round(avg(nll), 4) as after, round(avg(change), 4) as change,
       round(avg(change) - 1.96 * stddev_samp(change) / sqrt(count(*)), 4) as low,
       round(avg(change) + 1.96 * stddev_samp(change) / sqrt(count(*)), 4) as high
from changes
group by grouping sets ((model), (model, source), (model, source, is_refusal))
order by model, changes.source nulls first, is_refusal nulls first;
