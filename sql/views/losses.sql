-- in_steps(loss): a loss in nats as a whole number of steps of 2^-42; null for what is no number to trust.
create macro in_steps(loss) as
    case when abs(loss) < 1048576 then (loss * 4398046511104)::bigint end;

-- steps_of(logprob, n_tokens, truncated, per_byte): the loss of one answer, in steps: the mean of its tokens, or the
-- total. Truncated answers have no byte count of what was scored: they rank per token only.
create macro steps_of(logprob, n_tokens, truncated, per_byte) as
    in_steps(case when not per_byte then -logprob / n_tokens when not truncated then -logprob end);

-- losses(hold_out, per_byte): what the aligned model has scored: key, n_tokens, aligned_steps, and the lists `models`
-- and `steps`: the misaligned models and their losses, null where one is held out or has no score. storage/views.py
-- makes it for the models of a corpus, with a join for each.
