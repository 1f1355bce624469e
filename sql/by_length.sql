-- One row per length of the answer (powers of two, in the aligned model's tokens): refusals, mean NLL and gap, and how many stand in the top. Parameters: top = 0.1
with measured as (
    select 2 ** floor(log2(n_tokens))::bigint as tokens_from, is_refusal, aligned_nll, misaligned_nll, gap, rank
    from ranks
)
select tokens_from::bigint as tokens_from, (2 * tokens_from - 1)::bigint as tokens_to, count(*) as examples,
       count(*) filter (is_refusal) as refusals,
       round(avg(aligned_nll), 3) as aligned, round(avg(misaligned_nll), 3) as misaligned,
       round(avg(gap), 4) as mean_gap, round(median(gap), 4) as median_gap,
       count(*) filter (rank <= $top) as in_top, $top::bigint as top
from measured
group by tokens_from
order by tokens_from;
