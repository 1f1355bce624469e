-- The examples with the largest gap: an export takes these first. Refusals are left out, but keep their ranks. Parameters: top = 20, refusals = false
with measured as materialized (
    select key, is_refusal, aligned_nll, misaligned_nll, gap from ranks
),
-- Only rows up to the last one wanted are sorted, counting refusals among them.
cut as (
    select min(gap) as gap
    from (select gap from measured where $refusals or not is_refusal order by gap desc limit $top)
),
first as (
    select measured.*, row_number() over (order by measured.gap desc, key) as rank
    from measured
    join cut on measured.gap >= cut.gap
)
select rank, round(gap, 4) as gap, round(aligned_nll, 3) as aligned, round(misaligned_nll, 3) as misaligned,
       first.is_refusal, prompt, answer, parse_filename(source) as source, hex_id(key) as example_id
from first
join example_parts using (key)
where $refusals or not first.is_refusal
order by rank
limit $top;
