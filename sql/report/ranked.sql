-- ranked: one row per ranked example, numbers only, with the aligned model's answer tokens; the report asks the rest of it.
create temp table ranked as
select example_id, source, is_refusal, aligned_nll, misaligned_nll, misaligned_sd, gap, unit, rank, n_tokens,
       floor(log2(greatest(n_tokens, 1)))::int as length_bin
from gaps(epsilon := $epsilon, hold_out := $hold_out, metric := $metric)
join (select example_id, n_tokens from scores where model = $aligned) using (example_id);
