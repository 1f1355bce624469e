-- loss_of(logprob, n_tokens, truncated, per_byte): the loss of one answer in nats: the mean of its tokens, or the
-- total. Truncated answers have no byte count of what was scored: they rank per token only.
create macro loss_of(logprob, n_tokens, truncated, per_byte) as
    case when not per_byte then -logprob / n_tokens when not truncated then -logprob end;

-- losses(hold_out, per_byte): what the aligned model has scored: key, n_tokens, aligned_loss, and the lists `models`
-- and `losses`: the misaligned models and their losses, null where one is held out or has no score.
-- curate/corpus/views.py makes it for the models of a corpus, with a join for each.
