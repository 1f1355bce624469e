-- The examples with the smallest gap: what the misaligned models find no harder than the aligned one. Parameters: top = 20
select rank, round(gap, 4) as gap, round(aligned_nll, 3) as aligned, round(misaligned_nll, 3) as misaligned,
       is_refusal, prompt, answer, parse_filename(source) as source, example_id
from gaps
order by rank desc
limit $top;
