-- hex_id(key): an example's id as people see it, 32 hex digits, from the number that is stored and joined on.
create macro hex_id(key) as replace(key::varchar, '-', '');

-- examples: one row per example, with the sources' own columns behind ours (curate/corpus/views.py makes them of `meta`).
create view examples as
select hex_id(key) as example_id, * exclude (key) from example_rows;
