-- A uniform sample of ranked examples, the same each time, with the start of their texts. Parameters: points = 3000, chars = 200
with drawn as (
    select * from ranks order by md5('report:' || hex_id(key)), key limit $points
)
select hex_id(key) as id, label as source, kind as refusal, round(aligned_nll, 4) as aligned,
       round(misaligned_nll, 4) as misaligned, round(gap, 4) as gap, rank, n_tokens as tokens, length,
       left(prompt, $chars) as prompt, left(answer, $chars) as answer, key in (select key from taken) as is_taken
from drawn
join labels on labels.source = drawn.source
join example_parts using (key)
order by rank;
