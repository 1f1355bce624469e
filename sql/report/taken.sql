-- The export's first rows in full, and evenly spaced others with the start of their texts. Parameters: chars = 200, whole = 50, every = 1
select hex_id(key) as id, label as source, kind as refusal, round(aligned_nll, 4) as aligned,
       round(misaligned_nll, 4) as misaligned, round(ranks.gap, 4) as gap, rank, n_tokens as tokens, length,
       left(prompt, $chars) as prompt, left(answer, $chars) as answer, true as is_taken,
       place, if(place < $whole, messages, null) as messages
from taken
join ranks using (key)
join labels on labels.source = ranks.source
join example_parts using (key)
where place < $whole or place % $every = 0
order by place;
