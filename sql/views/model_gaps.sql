-- model_ranks(epsilon, hold_out, metric): the numbers of `model_gaps`, with the `key` of `ranks` to join and group on.
-- gap_without is null where the model is the only one.
create macro model_ranks(epsilon := 1.0, hold_out := [], metric := 'relative') as table
with each as (
    select
        key,
        unnest(models) as model,
        unnest(losses) / units as nll,
        aligned_nll,
        misaligned_nll,
        n_models,
        gap as ensemble_gap,
        is_refusal
    from measured(epsilon, hold_out, metric)
)
select
    key,
    model,
    nll,
    gap_of(aligned_nll, nll, epsilon, metric) as gap,
    gap_of(aligned_nll, (misaligned_nll * n_models - nll) / nullif(n_models - 1, 0), epsilon, metric) as gap_without,
    ensemble_gap,
    is_refusal
from each
where nll is not null;  -- as that of a model held out is

-- model_ranks: the macro with its defaults. A temporary table of this name can replace it.
create view model_ranks as from model_ranks();

-- model_gaps(epsilon, hold_out, metric): one row per example that `gaps` ranks and misaligned model: that model's own
-- loss and gap, in the unit of `gaps`, and the gap of the ensemble with and without it.
create macro model_gaps(epsilon := 1.0, hold_out := [], metric := 'relative') as table
select hex_id(key) as example_id, * exclude (key)
from model_ranks(epsilon := epsilon, hold_out := hold_out, metric := metric);

-- model_gaps: the macro with its defaults.
create view model_gaps as from model_gaps();
