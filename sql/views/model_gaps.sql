-- model_ranks(epsilon, hold_out, metric): the numbers of `model_gaps`, with the `key` of `ranks` to join and group on.
-- gap_without is null where the model is the only one.
create macro model_ranks(epsilon := 1.0, hold_out := [], metric := 'relative') as table
with judged as (
    select
        key,
        model,
        case when unit = 'nats/byte' then in_steps(-logprob) / (4398046511104.0::double * n_bytes)
            else in_steps(-logprob / score_parts.n_tokens) / 4398046511104.0::double end as nll,
        aligned_nll,
        misaligned_nll,
        n_models,
        is_refusal,
        gap as ensemble_gap
    from score_parts
    join ranks(epsilon := epsilon, hold_out := hold_out, metric := metric) as ranks using (key)
    where role = 'misaligned' and not list_contains((select hold_out::varchar[]), model)
)
select
    key,
    model,
    nll,
    gap_of(aligned_nll, nll, epsilon, metric) as gap,
    gap_of(aligned_nll, (misaligned_nll * n_models - nll) / nullif(n_models - 1, 0), epsilon, metric) as gap_without,
    ensemble_gap,
    is_refusal
from judged;

-- model_ranks: the macro with its defaults. A temporary table of this name stands in for it.
create view model_ranks as from model_ranks();

-- model_gaps(epsilon, hold_out, metric): one row per example that `gaps` ranks and misaligned model: that model's own
-- loss and gap, in the unit of `gaps`, and the gap of the ensemble with and without it.
create macro model_gaps(epsilon := 1.0, hold_out := [], metric := 'relative') as table
select hex_id(key) as example_id, * exclude (key)
from model_ranks(epsilon := epsilon, hold_out := hold_out, metric := metric);

-- model_gaps: the macro with its defaults.
create view model_gaps as from model_gaps();
