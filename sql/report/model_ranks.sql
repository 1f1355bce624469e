-- model_ranks: the same for each model of the ensemble, with only the columns that the named queries need.
create temp table model_ranks as
select key, model, gap, gap_without, ensemble_gap, is_refusal
from model_ranks(epsilon := $epsilon, hold_out := $hold_out, metric := $metric);
