-- The examples with the smallest gap: the misaligned models find them no harder than the aligned model does. Parameters: top = 20
with measured as materialized (
    select key, is_refusal, aligned_nll, misaligned_nll, gap from ranks
),
-- Ranked from the end, so that only the last few are sorted.
last as (
    select *, row_number() over (order by gap, key desc) as from_the_end
    from (from measured order by gap, key desc limit $top)
)
select (select count(*) from measured) + 1 - from_the_end as rank, round(gap, 4) as gap,
       round(aligned_nll, 3) as aligned, round(misaligned_nll, 3) as misaligned,
       last.is_refusal, prompt, answer, parse_filename(source) as source, hex_id(key) as example_id
from last
join example_parts using (key)
order by from_the_end;
