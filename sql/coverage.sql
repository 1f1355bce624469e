-- One row per model: examples scored, skipped, missing and truncated; answer tokens; mean NLL in nats per token.
with scored as (
    select model, count(*) as scored, count(*) filter (truncated) as truncated,
           sum(n_tokens)::bigint as answer_tokens, avg(nll) as mean_nll
    from scores
    group by model
),
dropped as (
    select model, count(distinct example_id) as skipped
    from skipped
    where model is not null
    group by model
)
select model, role, coalesce(scored, 0) as scored, coalesce(skipped, 0) as skipped,
       (select count(*) from examples) - coalesce(scored, 0) - coalesce(skipped, 0) as missing,
       coalesce(truncated, 0)::bigint as truncated, coalesce(answer_tokens, 0) as answer_tokens,
       round(mean_nll, 4) as mean_nll
from models
left join scored using (model)
left join dropped using (model)
order by role, model;
