-- Does the gap favor some lengths? Correlation of gap with answer tokens (rank; and with their logarithm), and the mean length in the top. Parameters: top = 0.1
with measured as (
    select rank, gap, is_refusal, n_tokens,
           rank() over (order by gap) + (count(*) over (partition by gap) - 1) / 2 as gap_rank,
           rank() over (order by n_tokens) + (count(*) over (partition by n_tokens) - 1) / 2 as length_rank
    from ranks
),
grouped as (
    select 'all' as answers, * from measured
    union all
    select case when is_refusal then 'refusals' else 'no refusals' end, * from measured
)
select answers, count(*) as examples,
       round(corr(gap_rank, length_rank), 3) as rank_correlation,
       round(corr(gap, ln(n_tokens)), 3) as log_correlation,
       round(avg(n_tokens), 1) as mean_tokens,
       round(avg(n_tokens) filter (rank <= $top), 1) as mean_tokens_in_top, $top::bigint as top
from grouped
group by answers
order by answers;
