-- The selection's numbers in its order, with the start of their texts. Parameters: chars = 200
select taken.example_id, label, ranked.is_refusal, aligned_nll, misaligned_nll, ranked.gap, ranked.rank, n_tokens,
       length_bin, n_bytes, left(prompt, $chars) as prompt, left(answer, $chars) as answer,
       md5(regexp_replace(lower(trim(prompt)), '\s+', ' ', 'g')) as prompt_key,
       md5(regexp_replace(lower(trim(answer)), '\s+', ' ', 'g')) as answer_key
from taken
join ranked using (example_id)
join labels on labels.source = ranked.source
join examples using (example_id)
order by place;
