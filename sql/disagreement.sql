-- Examples on which the ensemble splits: the largest distance between the gaps of two of its models. Parameters: top = 20
with measured as materialized (
    select key, rank, gap, unit,
           gap_of(aligned_nll, lowest_nll, $epsilon, $metric) as lowest,
           gap_of(aligned_nll, highest_nll, $epsilon, $metric) as highest
    from ranks
),
split as (
    select *, highest - lowest as spread
    from measured
    order by spread desc, key
    limit $top
),
losses as (
    select key, model, case unit when 'nats/byte' then -logprob else -logprob / n_tokens end as loss
    from score_parts
    join split using (key)
    where role = 'misaligned' and not list_contains(string_split($hold_out, ','), model)
),
ends as (
    select key, min_by(model, (loss, model)) as lowest_model, max_by(model, (loss, model)) as highest_model
    from losses
    group by key
)
select round(spread, 4) as spread, round(lowest, 4) as lowest, lowest_model, round(highest, 4) as highest,
       highest_model, rank, round(gap, 4) as gap, prompt, answer, hex_id(key) as example_id
from split
join ends using (key)
join example_parts using (key)
order by split.spread desc, key;
