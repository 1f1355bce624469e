-- Examples that say the same but for case, spaces and punctuation: one row per such answer (or prompt: of = prompt), those with most copies in the top first. Parameters: of = answer, top = 0.1, limit = 20
with texts as materialized (
    select key as example, source, hash(translate(lower(
        case $of when 'answer' then answer when 'prompt' then prompt
            else error('duplicates of what? -p of=answer or -p of=prompt') end),
        e' \t\r\n.,:;!?\'\"()[]{}*_#`-–—‘’“”…', '')) as key
    from example_parts
),
groups as (
    select key, count(*) as copies, count(distinct source) as sources, min(example) as first
    from texts
    group by key
    having count(*) > 1
),
placed as (
    select key, count(*) filter (rank <= $top) as in_top, min(rank) as best_rank
    from texts
    semi join groups using (key)
    left join (select key as example, rank from ranks) using (example)
    group by key
)
select copies, in_top, $top::bigint as top, best_rank, sources, case $of when 'prompt' then prompt else answer end as text,
       hex_id(example_parts.key) as example_id
from groups
join placed using (key)
join example_parts on example_parts.key = first
order by in_top desc, copies desc, example_id
limit $limit;
