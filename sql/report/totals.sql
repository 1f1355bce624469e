-- Totals over the export's rows; a row repeats another if its text is the same, ignoring case and spaces.
select count(*) as rows, coalesce(sum(n_tokens), 0)::bigint as tokens, count(*) filter (ranks.is_refusal) as refusals,
       count(*) - count(distinct md5(regexp_replace(lower(trim(prompt)), '\s+', ' ', 'g'))) as same_prompt,
       count(*) - count(distinct md5(regexp_replace(lower(trim(answer)), '\s+', ' ', 'g'))) as same_answer,
       arg_max(ranks.gap, place) as last_gap
from taken
join ranks using (key)
join example_parts using (key);
