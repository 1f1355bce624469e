-- Why rows were not read or not scored: one row per reason, model and source, with the first row affected.
select count(*) as skipped, reason, model, source, min(row) as first_row, min(example_id) as first_example
from skipped
group by reason, model, source
order by skipped desc, reason, model, source;
