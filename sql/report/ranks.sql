-- ranks: the report's ranking, once, with each example's source and band of answer lengths. It replaces the view of
-- that name, so that this page's questions and three named queries (agreement, leave_one_out and epsilon_sweep) use the
-- export's own epsilon, metric and ensemble.
create temp table ranks as
select ranks.*, source, if(is_refusal, 'refusal', 'answer') as kind,
       floor(log2(greatest(n_tokens, 1)))::int as length_bin,
       if(length_bin = 0, '1', format('{:,}–{:,}', 1::bigint << length_bin, (2::bigint << length_bin) - 1)) as length
from ranks(epsilon := $epsilon, hold_out := $hold_out, metric := $metric) as ranks
join (select key, source from example_parts) using (key);
