-- hex_id(key): an example's id as 32 hex digits, from the number that is stored and used in joins.
create macro hex_id(key) as replace(key::varchar, '-', '');

-- examples: one row per example, followed by the sources' own columns (which curate/corpus/views.py takes from `meta`).
create view examples as
select hex_id(key) as example_id, * exclude (key) from example_rows;
