-- The selection's numbers in its order, with the start of their texts. Parameters: chars = 200
select hex_id(key) as example_id, label, ranks.is_refusal, aligned_nll, misaligned_nll, ranks.gap, ranks.rank, n_tokens,
       length_bin, ranks.n_bytes, left(prompt, $chars) as prompt, left(answer, $chars) as answer,
       md5(regexp_replace(lower(trim(prompt)), '\s+', ' ', 'g')) as prompt_key,
       md5(regexp_replace(lower(trim(answer)), '\s+', ' ', 'g')) as answer_key
from taken
join ranks using (key)
join labels on labels.source = ranks.source
join example_parts using (key)
order by place;
