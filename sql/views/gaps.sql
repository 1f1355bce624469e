-- gaps(epsilon, hold_out, metric): one row per example that the aligned model and every misaligned model
-- not held out have scored; an example with a score missing never ranks.
--
-- L(model) is the mean negative log-likelihood of the answer: nats per token where all models tokenise alike,
-- nats per UTF-8 byte otherwise (column `unit` says which). misaligned_nll is the mean of L over the ensemble.
--   metric 'relative'    (misaligned_nll - aligned_nll) / (aligned_nll + epsilon)    Kaczer et al., arXiv 2508.06249
--   metric 'difference'   misaligned_nll - aligned_nll                               Moore and Lewis 2010
--   metric 'per_byte'     the relative gap, in nats per byte whatever the tokenisers
-- Truncated answers have no byte count of what was scored: they rank per token only.
-- Means are taken over sorted values, so that the last bit does not depend on threads.
create macro gaps(epsilon := 1.0, hold_out := [], metric := 'relative') as table
with ensemble as (
    select model, role, tokenizer
    from models
    where not list_contains(hold_out::varchar[], model)
),
checked as (
    select
        count(distinct tokenizer) > 1 or metric = 'per_byte' as per_byte,
        count(*) as n_members,
        case
            when metric not in ('relative', 'difference', 'per_byte')
                then error('unknown metric ''' || metric || ''': relative, difference or per_byte')
            when epsilon < 0
                then error('epsilon is ' || epsilon || ': it must not be negative')
            when not list_has_all(
                    (select coalesce(list(model), []) from models where role = 'misaligned'),
                    hold_out::varchar[])
                then error('hold_out names a model that is not in the ensemble: ' || hold_out::varchar)
            when count(*) filter (role = 'misaligned') = 0 and (select count(*) from models) > 0
                then error('no misaligned model is left: hold out fewer, or score one')
            else true
        end as is_valid
    from ensemble
),
members as (
    select
        scores.example_id,
        max(nll) filter (role = 'aligned') as aligned_token,
        max(-logprob) filter (role = 'aligned') as aligned_total,
        list_sort(list(nll) filter (role = 'misaligned')) as misaligned_token,
        list_sort(list(-logprob) filter (role = 'misaligned')) as misaligned_total,
        bool_or(truncated) as is_cut
    from scores
    join ensemble using (model)
    group by scores.example_id
    having count(*) = (select n_members from checked) and count(*) filter (role = 'aligned') = 1
),
losses as (
    select
        example_id,
        is_refusal,
        per_byte,
        case when per_byte then aligned_total / n_bytes else aligned_token end as aligned_nll,
        case when per_byte then list_avg(misaligned_total) / n_bytes
            else list_avg(misaligned_token) end as misaligned_nll,
        case when per_byte then list_stddev_samp(misaligned_total) / n_bytes
            else list_stddev_samp(misaligned_token) end as misaligned_sd,
        len(misaligned_token) as n_models
    from members
    join examples using (example_id)
    cross join checked
    where is_valid and not (per_byte and is_cut)
),
measured as (
    select
        *,
        case metric
            when 'difference' then misaligned_nll - aligned_nll
            else (misaligned_nll - aligned_nll) / (aligned_nll + epsilon::double)
        end as gap
    from losses
),
ranked as (
    select
        *,
        row_number() over (order by gap desc, example_id) as rank,
        case when not is_refusal
            then row_number() over (partition by is_refusal order by gap desc, example_id)
        end as rank_kept
    from measured
    where isfinite(gap)
)
-- The texts come last: ranking moves numbers only.
select
    example_id,
    source,
    prompt,
    answer,
    ranked.is_refusal,
    aligned_nll,
    misaligned_nll,
    misaligned_sd,
    n_models,
    gap,
    case when per_byte then 'nats/byte' else 'nats/token' end as unit,
    rank,
    rank_kept
from ranked
join examples using (example_id);

-- gaps: the macro with its defaults (epsilon 1.0, the whole ensemble, the relative gap).
create view gaps as from gaps();
