-- ranks: the numbers of the report's ranking, once, with each example's source. It stands in for the view of that name,
-- so that this page's questions and three named queries (agreement, leave_one_out and epsilon_sweep) are asked of the
-- recipe's own epsilon, metric and ensemble. The others are not made for it: curate/report/lens.py says why.
create temp table ranks as
select ranks.*, source, floor(log2(greatest(n_tokens, 1)))::int as length_bin
from ranks(epsilon := $epsilon, hold_out := $hold_out, metric := $metric) as ranks
join (select key, source from example_parts) using (key);
