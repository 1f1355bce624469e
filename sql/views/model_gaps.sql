-- model_gaps(epsilon, metric): one row per example that `gaps` ranks and misaligned model: that model's own
-- loss and gap, in the unit of `gaps`, and the gap of the ensemble with and without it. Null: it is the only one.
create macro model_gaps(epsilon := 1.0, metric := 'relative') as table
with ranked as (
    select example_id, aligned_nll, misaligned_nll, n_models, is_refusal, gap, unit = 'nats/byte' as per_byte
    from gaps(epsilon := epsilon, metric := metric)
),
judged as (
    select scores.example_id, model, 
           case when per_byte then in_steps(-logprob) / (4398046511104.0::double * n_bytes)
               else in_steps(nll) / 4398046511104.0::double end as nll,
           aligned_nll, misaligned_nll, n_models, ranked.is_refusal, ranked.gap as ensemble_gap
    from ranked
    join scores using (example_id)
    join examples using (example_id)
    where model in (select model from models where role = 'misaligned')
)
select example_id, model, nll, gap_of(aligned_nll, nll, epsilon, metric) as gap,
       gap_of(aligned_nll, (misaligned_nll * n_models - nll) / nullif(n_models - 1, 0), epsilon, metric) as gap_without,
       ensemble_gap, is_refusal
from judged;

-- model_gaps: the macro with its defaults.
create view model_gaps as from model_gaps();
