-- scores: one row per (example, model). nll is nats per answer token; logprob the sum over the answer, in nats.
create view scores as
select hex_id(key) as example_id, model, n_tokens, logprob, truncated, -logprob / n_tokens as nll, token_logprobs, tokens
from token_parts;
