-- loss_of(logprob, n_tokens, truncated, per_byte): the loss of one answer in nats: the mean over its tokens or, per
-- byte, the total. It is unknown how many bytes of a truncated answer were scored: these rank per token only.
create macro loss_of(logprob, n_tokens, truncated, per_byte) as
    case when not per_byte then -logprob / n_tokens when not truncated then -logprob end;

-- losses(hold_out, per_byte): one row per example that the aligned model scored: key, n_tokens, aligned_loss, and
-- the lists `models` and `losses`: the misaligned models and their losses, null for those held out or without a score.
-- curate/corpus/views.py creates it for the models of a corpus, with one join for each.
