-- A uniform draw of ranked examples, the same one each time, with the start of their texts. Parameters: points = 3000, chars = 200
with drawn as (
    select * from ranked order by md5('report:' || example_id), example_id limit $points
)
select drawn.example_id, label, drawn.is_refusal, aligned_nll, misaligned_nll, gap, rank, n_tokens, length_bin,
       left(prompt, $chars) as prompt, left(answer, $chars) as answer
from drawn
join labels using (source)
join examples using (example_id)
order by rank;
