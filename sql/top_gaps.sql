-- The examples with the largest gap: what an export takes first. Parameters: top = 20, refusals = false
select rank, round(gap, 4) as gap, round(aligned_nll, 3) as aligned, round(misaligned_nll, 3) as misaligned,
       is_refusal, prompt, answer, parse_filename(source) as source, example_id
from gaps
where case when $refusals then rank else rank_kept end <= $top
order by rank;
