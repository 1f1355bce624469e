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
--
-- What is not asked for is not computed: without `rank` and `rank_kept` nothing is sorted. `key` is the example_id as
-- a 128-bit number, to join and group on; `n_tokens` are the aligned model's tokens of the answer; `lowest_nll` and
-- `highest_nll` are the ends of the ensemble.
create macro ranks(epsilon := 1.0, hold_out := [], metric := 'relative') as table
with ensemble as (
    select model, role, tokenizer
    from models
    where not list_contains(hold_out::varchar[], model)
),
checked as (
    select
        count(distinct tokenizer) > 1 or metric = 'per_byte' as per_byte,
        count(*) filter (role = 'misaligned') as n_models,
        -- The ensemble's names; read by every row, so that a wrong argument never gives an empty ranking.
        case
            when metric not in ('relative', 'difference', 'per_byte')
                then error('unknown metric ''' || metric || ''': relative, difference or per_byte')
            when epsilon < 0 or not isfinite(epsilon::double)
                then error('epsilon is ' || epsilon || ': it must not be negative or infinite')
            when not list_has_all(
                    (select coalesce(list(model), []) from models where role = 'misaligned'),
                    hold_out::varchar[])
                then error('hold_out names a model that is not in the ensemble: ' || hold_out::varchar
                    || '; in it are ' || (select coalesce(list(model order by model), []) from models where role = 'misaligned')::varchar)
            when count(*) filter (role = 'misaligned') = 0 and (select count(*) from models) > 0
                then error('no misaligned model ' || case when len(hold_out) = 0
                    then 'has scored this corpus: score one with --misaligned'
                    else 'is left: hold out fewer' end)
            else list(model)
        end as members
    from ensemble
),
-- Not materialized: each of its two readers reads its own models' parts.
losses as not materialized (
    select
        key,
        role,
        n_tokens,
        in_steps(case when not per_byte then -logprob / n_tokens when not truncated then -logprob end) as steps
    from score_parts
    cross join checked
    where list_contains(members, model)
),
aligned as (
    select key, n_tokens, steps from losses where role = 'aligned' and steps is not null
),
misaligned as (
    select
        key,
        count(steps) as n_scores,
        sum(steps) as steps,
        sum(steps::hugeint * steps) as squares,
        min(steps) as lowest,
        max(steps) as highest
    from losses
    where role = 'misaligned'
    group by key
),
members as (
    select
        key,
        is_refusal,
        n_tokens,
        n_bytes,
        n_models,
        per_byte,
        -- From steps to nats, and from an answer's total to its mean per byte.
        4398046511104.0::double * case when per_byte then n_bytes else 1 end as steps_a_unit,
        aligned.steps / steps_a_unit as aligned_nll,
        misaligned.steps / n_models / steps_a_unit as misaligned_nll,
        sqrt((n_models * squares - misaligned.steps * misaligned.steps) / nullif(n_models * (n_models - 1), 0))
            / steps_a_unit as misaligned_sd,
        lowest / steps_a_unit as lowest_nll,
        highest / steps_a_unit as highest_nll
    from misaligned
    join aligned using (key)
    join example_parts using (key)
    cross join checked
    where n_scores = n_models
),
measured as (
    select *, gap_of(aligned_nll, misaligned_nll, epsilon, metric) as gap
    from members
)
select
    hex_id(key) as example_id,
    key,
    is_refusal,
    n_tokens,
    n_bytes,
    aligned_nll,
    misaligned_nll,
    misaligned_sd,
    lowest_nll,
    highest_nll,
    n_models,
    gap,
    case when per_byte then 'nats/byte' else 'nats/token' end as unit,
    row_number() over (order by gap desc, key) as rank,
    -- Its number among its kind, not a filtered count over a frame, which takes minutes on a million rows.
    case when not is_refusal then row_number() over (partition by is_refusal order by gap desc, key) end as rank_kept
from measured
where isfinite(gap);

-- ranks: the macro with its defaults. The named queries ask it; a temporary table of this name stands in for it.
create view ranks as from ranks();

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
join example_parts using (key);

-- gaps: the macro with its defaults (epsilon 1.0, the whole ensemble, the relative gap).
create view gaps as from gaps();
