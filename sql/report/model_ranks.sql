-- model_ranks: the same for each model of the ensemble; only what the named queries ask of it.
create temp table model_ranks as
select key, model, gap, gap_without, ensemble_gap, is_refusal
from model_ranks(epsilon := $epsilon, hold_out := $hold_out, metric := $metric);
