-- How the top changes with epsilon: overlap with the top at epsilon = 1, and what it then holds (means; answer tokens). Parameters: top = 1000, refusals = false, epsilons = 0 0.01 0.1 0.3 1 3 10
with measured as (
    select example_id, is_refusal, aligned_nll, misaligned_nll
    from gaps
    where $refusals or not is_refusal
),
lengths as (
    select example_id, n_tokens
    from scores
    join models using (model)
    where role = 'aligned'
),
swept as (
    select unnest(string_split($epsilons::varchar, ' ')::double[]) as epsilon
),
tops as materialized (
    select epsilon, example_id, aligned_nll, misaligned_nll, is_refusal
    from measured
    cross join (select epsilon from swept union select 1.0)
    qualify row_number() over (
        partition by epsilon order by gap_of(aligned_nll, misaligned_nll, epsilon) desc, example_id) <= $top
),
usual as (
    select example_id from tops where epsilon = 1.0
)
select tops.epsilon, count(*) as top, count(usual.example_id) as same_as_at_1,
       round(count(usual.example_id) / count(*), 4) as overlap,
       round(avg(aligned_nll), 3) as aligned, round(avg(misaligned_nll), 3) as misaligned,
       round(avg(n_tokens), 1) as tokens, count(*) filter (is_refusal) as refusals
from tops
join lengths using (example_id)
left join usual using (example_id)
where tops.epsilon in (select epsilon from swept)
group by tops.epsilon
order by tops.epsilon;
