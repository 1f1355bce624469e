-- Examples that say the same but for case, spaces and punctuation: one row per such answer (or prompt: of = prompt), those with most copies in the top first. Parameters: of = answer, top = 1000, limit = 20
with texts as materialized (
    select example_id, source, hash(translate(lower(
        case $of when 'answer' then answer when 'prompt' then prompt
            else error('duplicates of what? -p of=answer or -p of=prompt') end),
        e' \t\r\n.,:;!?\'\"()[]{}*_#`-–—‘’“”…', '')) as key
    from examples
),
groups as (
    select key, count(*) as copies, count(distinct source) as sources, min(example_id) as first_id
    from texts
    group by key
    having count(*) > 1
),
placed as (
    select key, count(*) filter (rank <= $top) as in_top, min(rank) as best_rank
    from texts
    semi join groups using (key)
    left join gaps using (example_id)
    group by key
)
select copies, in_top, best_rank, sources, case $of when 'prompt' then prompt else answer end as text, example_id
from groups
join placed using (key)
join examples on example_id = first_id
order by in_top desc, copies desc, example_id
limit $limit;
