-- gap_of(aligned_nll, misaligned_nll, epsilon, metric): the gap of one pair of losses. The formula, once.
create macro gap_of(aligned_nll, misaligned_nll, epsilon := 1.0, metric := 'relative') as
    case metric
        when 'difference' then misaligned_nll - aligned_nll
        else (misaligned_nll - aligned_nll) / (aligned_nll + epsilon::double)
    end;

-- in_steps(loss): a loss in nats as a whole number of steps of 2^-42; null for what is no number to trust.
create macro in_steps(loss) as
    case when abs(loss) < 1048576 then (loss * 4398046511104)::bigint end;

-- ranks(epsilon, hold_out, metric): the numbers of `gaps` without the texts. One row per example that the aligned
-- model and every misaligned model not held out have scored; an example with a score missing never ranks.
--
-- L(model) is the mean negative log-likelihood of the answer: nats per token where all models tokenise alike,
-- nats per UTF-8 byte otherwise (column `unit` says which). misaligned_nll is the mean of L over the ensemble.
--   metric 'relative'    (misaligned_nll - aligned_nll) / (aligned_nll + epsilon)    Kaczer et al., arXiv 2508.06249
--   metric 'difference'   misaligned_nll - aligned_nll                               Moore and Lewis 2010
--   metric 'per_byte'     the relative gap, in nats per byte whatever the tokenisers
-- Truncated answers have no byte count of what was scored: they rank per token only.
-- Losses are added up as whole steps of 2^-42 nats (2.3e-13), so that the last bit of a mean does not depend on
-- threads. A loss of 2^20 nats or more is no number to trust: its example does not rank.
create macro ranks(epsilon := 1.0, hold_out := [], metric := 'relative') as table
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
            when epsilon < 0 or not isfinite(epsilon::double)
                then error('epsilon is ' || epsilon || ': it must not be negative or infinite')
            when not list_has_all(
                    (select coalesce(list(model), []) from models where role = 'misaligned'),
                    hold_out::varchar[])
                then error('hold_out names a model that is not in the ensemble: ' || hold_out::varchar)
            when count(*) filter (role = 'misaligned') = 0 and (select count(*) from models) > 0
                then error('no misaligned model ' || case when len(hold_out) = 0
                    then 'has scored this corpus: score one with --misaligned'
                    else 'is left: hold out fewer' end)
            else true
        end as is_valid
    from ensemble
),
losses as (
    select
        example_id,
        role = 'aligned' as is_aligned,
        per_byte and truncated as is_cut,
        in_steps(case when per_byte then -logprob else nll end) as steps
    from scores
    join ensemble using (model)
    cross join checked
    where is_valid
),
sums as (
    select
        example_id,
        max(steps) filter (is_aligned) as aligned,
        sum(steps) filter (not is_aligned) as misaligned,
        sum(steps::hugeint * steps) filter (not is_aligned) as squares,
        count(steps) as n_scores,
        bool_or(is_cut) as is_cut
    from losses
    group by example_id
),
members as (
    select
        example_id,
        is_refusal,
        per_byte,
        n_members - 1 as n_models,
        -- From steps to nats, and from an answer's total to its mean per byte.
        4398046511104.0::double * case when per_byte then n_bytes else 1 end as unit,
        aligned / unit as aligned_nll,
        misaligned / n_models / unit as misaligned_nll,
        sqrt((n_models * squares - misaligned * misaligned) / nullif(n_models * (n_models - 1), 0)) / unit
            as misaligned_sd
    from sums
    join examples using (example_id)
    cross join checked
    where n_scores = n_members and aligned is not null and not is_cut
),
measured as (
    select *, gap_of(aligned_nll, misaligned_nll, epsilon, metric) as gap
    from members
),
ranked as (
    select
        *,
        row_number() over (order by gap desc, example_id) as rank,
        case when not is_refusal
            then count(*) filter (not is_refusal) over (order by gap desc, example_id rows unbounded preceding)
        end as rank_kept
    from measured
    where isfinite(gap)
)
select
    example_id,
    is_refusal,
    aligned_nll,
    misaligned_nll,
    misaligned_sd,
    n_models,
    gap,
    case when per_byte then 'nats/byte' else 'nats/token' end as unit,
    rank,
    rank_kept
from ranked;

-- gaps(epsilon, hold_out, metric): the same with the texts, which come last: ranking moves numbers only.
create macro gaps(epsilon := 1.0, hold_out := [], metric := 'relative') as table
select
    example_id,
    source,
    prompt,
    answer,
    ranks.is_refusal,
    aligned_nll,
    misaligned_nll,
    misaligned_sd,
    n_models,
    gap,
    unit,
    rank,
    rank_kept
from ranks(epsilon := epsilon, hold_out := hold_out, metric := metric) as ranks
join examples using (example_id);

-- gaps: the macro with its defaults (epsilon 1.0, the whole ensemble, the relative gap).
create view gaps as from gaps();
