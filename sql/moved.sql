-- Examples whose NLL fine-tuning moved most, up or down: before (aligned), after and the change. Parameters: top = 20
with moved as (
    select key, model, nll - gap as before, nll as after, gap as change
    from model_ranks(metric := 'difference')
    order by abs(change) desc, key, model
    limit $top
)
select model, round(before, 4) as before, round(after, 4) as after, round(change, 4) as change, is_refusal,
       source, prompt, answer, hex_id(key) as example_id
from moved
join example_parts using (key)
order by abs(moved.change) desc, key, model;
