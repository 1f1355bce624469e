-- Why rows were not read or not scored: one row per reason, model and source, with a first row to look at.
select count(*) as skipped, reason, model, source, min(row) as first_row, min(example_id) as first_example
from skipped
group by reason, model, source
order by skipped desc, reason, model, source;
