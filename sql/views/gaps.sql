-- gap_of(aligned_nll, misaligned_nll, epsilon, metric): the gap of one pair of losses. The only place with the formula.
create macro gap_of(aligned_nll, misaligned_nll, epsilon := 1.0, metric := 'relative') as
    case metric
        when 'difference' then misaligned_nll - aligned_nll
        else (misaligned_nll - aligned_nll) / (aligned_nll + epsilon::double)
    end;

-- weighed(epsilon, hold_out, metric): one row per example that the aligned model has scored, with the losses of the
-- misaligned models that are not held out; null where one has no score, and left out of the means.
--
-- L(model) is the mean negative log-likelihood of the answer: nats per token if all models share a tokenizer,
-- nats per UTF-8 byte otherwise (column `unit` says which). misaligned_nll is the mean of L over the ensemble.
--   metric 'relative'    (misaligned_nll - aligned_nll) / (aligned_nll + epsilon)    Kaczer et al., arXiv 2508.06249
--   metric 'difference'   misaligned_nll - aligned_nll                               Moore and Lewis 2010
--   metric 'per_byte'     the relative gap, in nats per byte whatever the tokenizers
-- Losses are summed in the order of the models' names, so the last bit of a mean does not depend on threads.
create macro weighed(epsilon, hold_out, metric) as table
with ensemble as (
    select role, tokenizer
    from models
    where not list_contains(hold_out::varchar[], model)
),
checked as (
    select
        count(distinct tokenizer) > 1 or metric = 'per_byte' as per_byte,
        -- Every row reads this, so a wrong argument is an error and never an empty ranking.
        case
            when coalesce(metric not in ('relative', 'difference', 'per_byte'), true)
                then error('unknown metric ''' || coalesce(metric, 'null') || ''': relative, difference or per_byte')
            when coalesce(epsilon < 0 or not isfinite(epsilon::double), true)
                then error('epsilon is ' || coalesce(epsilon::varchar, 'null')
                    || ': it must not be negative or infinite')
            when not list_has_all(
                    (select coalesce(list(model), []) from models where role = 'misaligned'),
                    hold_out::varchar[])
                then error('hold_out names a model that is not in the ensemble: ' || hold_out::varchar
                    || '. Choose from ' || (select coalesce(list(model order by model), []) from models where role = 'misaligned')::varchar)
            when count(*) filter (role = 'misaligned') = 0 and (select count(*) from models) > 0
                then error('no misaligned model ' || case when len(hold_out) = 0
                    then 'has scored this corpus. Add one with --misaligned.'
                    else 'is left. Hold out fewer.' end)
            else count(*) filter (role = 'misaligned')
        end as n_models
    from ensemble
)
select
    key,
    is_refusal,
    n_tokens,
    n_bytes,
    n_models,
    per_byte,
    models,
    losses,
    -- From an answer's total to its mean per byte.
    case when per_byte then n_bytes else 1 end as units,
    aligned_loss / units as aligned_nll,
    list_sum(losses) / list_count(losses) / units as misaligned_nll,
    list_stddev_samp(losses) / units as misaligned_sd,
    list_min(losses) / units as lowest_nll,
    list_max(losses) / units as highest_nll,
    gap_of(aligned_nll, misaligned_nll, epsilon, metric) as gap
from losses(hold_out, (select per_byte from checked))
join example_parts using (key)
cross join checked;

-- measured(epsilon, hold_out, metric): the rows of `weighed` that the whole ensemble has scored: `ranks` and
-- `model_ranks` stand on it. An example with a score missing is not there.
create macro measured(epsilon, hold_out, metric) as table
from weighed(epsilon, hold_out, metric)
-- Without the last condition, DuckDB sees that no row can pass and skips the check.
where list_count(losses) = n_models and (isfinite(gap) or epsilon is null);

-- ranks(epsilon, hold_out, metric): the numbers of `gaps` without the texts.
--
-- Columns that are not selected are not computed: without `rank` and `rank_kept`, nothing is sorted. `key` is the
-- example_id as a 128-bit number, for joins and groups; `n_tokens` counts the answer's tokens by the aligned model's
-- tokenizer; `lowest_nll` and `highest_nll` are the extremes of the ensemble.
create macro ranks(epsilon := 1.0, hold_out := [], metric := 'relative') as table
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
    -- A row number per kind: a filtered count over a frame takes minutes on a million rows.
    case when not is_refusal then row_number() over (partition by is_refusal order by gap desc, key) end as rank_kept
from measured(epsilon, hold_out, metric);

-- ranks: the macro with its defaults. The named queries read it; a temporary table of this name can replace it.
create view ranks as from ranks();

-- gaps(epsilon, hold_out, metric): the same with the texts, which are joined last so that sorting moves only numbers.
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
