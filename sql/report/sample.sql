-- A uniform draw of ranked examples, the same one each time, with the start of their texts. Parameters: points = 3000, chars = 200
with drawn as (
    select * from ranks order by md5('report:' || hex_id(key)), key limit $points
)
select hex_id(key) as example_id, label, drawn.is_refusal, aligned_nll, misaligned_nll, gap, rank, n_tokens, length_bin,
       left(prompt, $chars) as prompt, left(answer, $chars) as answer
from drawn
join labels on labels.source = drawn.source
join example_parts using (key)
order by rank;
