-- Is another corpus's ranking of the same examples enough? How deep it holds the best ones here. Parameters: other = "", share = 0.05
-- The other's models may be smaller. rank_correlation is Spearman's; examples counts those that both rank, of a raced
-- corpus only its audit sample. recall: of the best `share` here, how many are in the other's best `depth`.
with pairs as (
    select
        row_number() over (order by ranks.gap desc, key) as rank,
        row_number() over (order by other.gap desc, key) as other_rank,
        rank() over (order by ranks.gap) + count(*) over (order by ranks.gap) as twice_rank,
        rank() over (order by other.gap) + count(*) over (order by other.gap) as other_twice_rank,
        count(*) over () as examples
    from ranks
    join other_ranks as other using (key)
)
select
    depth,
    ceil(depth * examples)::bigint as read,
    round(
        count(*) filter (rank <= ceil($share * examples) and other_rank <= read)
        / count(*) filter (rank <= ceil($share * examples)), 4
    ) as recall,
    round(corr(twice_rank, other_twice_rank), 4) as rank_correlation,
    examples
from pairs
cross join (select unnest([0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]) as depth)
group by depth, examples
order by depth;
