-- How the top changes with epsilon: overlap with the top at `epsilon`, and what it then holds (means; answer tokens). Parameters: top = 0.1, refusals = false, epsilons = 0 0.01 0.1 0.3 1 3 10
with measured as materialized (
    select key, is_refusal, n_tokens, aligned_nll, misaligned_nll
    from ranks
    where $refusals or not is_refusal
),
swept as (
    select case when epsilon >= 0 and isfinite(epsilon) then epsilon
        else error('epsilon is ' || epsilon::varchar || ': it must not be negative or infinite') end as epsilon
    from (
        select unnest(string_split($epsilons::varchar, ' ')::double[]) as epsilon
        union
        select $epsilon::double
    )
),
-- The last gap of each top; only what reaches it is put in order.
cuts as (
    select epsilon, min(gap) as cut
    from (
        select epsilon, gap_of(aligned_nll, misaligned_nll, epsilon) as gap
        from measured
        cross join swept
        qualify row_number() over (partition by epsilon order by gap desc) <= $top
    )
    group by epsilon
),
tops as materialized (
    select epsilon, key, is_refusal, n_tokens, aligned_nll, misaligned_nll
    from measured
    join cuts on gap_of(aligned_nll, misaligned_nll, epsilon) >= cut
    qualify row_number() over (
        partition by epsilon order by gap_of(aligned_nll, misaligned_nll, epsilon) desc, key) <= $top
),
usual as (
    select key from tops where epsilon = $epsilon::double
)
select tops.epsilon, count(*) as top, count(usual.key) as same,
       round(count(usual.key) / count(*), 4) as overlap,
       round(avg(aligned_nll), 3) as aligned, round(avg(misaligned_nll), 3) as misaligned,
       round(avg(n_tokens), 1) as tokens, count(*) filter (is_refusal) as refusals
from tops
left join usual using (key)
where list_contains(string_split($epsilons::varchar, ' ')::double[], tops.epsilon)
group by tops.epsilon
order by tops.epsilon;
