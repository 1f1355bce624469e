-- Each source label's share of the export and of all ranked examples.
select label as source, count(taken.key) as taken, count(*) as ranked,
       count(taken.key) / greatest((select count(*) from taken), 1) as share,
       count(*) / (select count(*) from ranks) as usual
from ranks
join labels using (source)
left join taken using (key)
group by label
order by ranked desc, source;
