-- What each view and column holds; the unit is in brackets. docs/sql.md is made from these.
comment on view examples is 'One row per example: a prompt and the answer that is scored.';
comment on column examples.example_id is '32 hex digits: a hash of the messages, the same in every corpus';
comment on column examples.source is 'the file or data set it came from';
comment on column examples.row is 'its line or row there, from 1';
comment on column examples.messages is 'the conversation, the answer last; reasoning_content is null where a turn has none';
comment on column examples.prompt is 'what comes before the answer, as people read it';
comment on column examples.answer is 'the last message';
comment on column examples.n_bytes is 'length of the answer and its reasoning in UTF-8 [bytes]';
comment on column examples.is_refusal is 'the paper''s keyword rule holds for the answer''s first ten words';
comment on column examples.meta is 'the source''s other columns [JSON object]';

comment on view scores is 'One row per example and model that has scored it.';
comment on column scores.example_id is 'the example';
comment on column scores.model is 'the model''s name in this corpus';
comment on column scores.n_tokens is 'answer tokens that were scored [tokens]';
comment on column scores.logprob is 'log-probability of the answer, summed over its tokens [nats]';
comment on column scores.truncated is 'the answer was cut at its end to keep --max-length';
comment on column scores.nll is 'mean negative log-likelihood: -logprob / n_tokens [nats/token]';
comment on column scores.token_logprobs is 'log-probability of each answer token, with --keep-tokens; else null [nats]';
comment on column scores.tokens is 'text of each answer token, with --keep-tokens, on the aligned model''s rows; else null';

comment on table models is 'One row per model of the corpus.';
comment on column models.model is 'its name in this corpus';
comment on column models.role is 'aligned or misaligned';
comment on column models.reference is 'the folder or hub id that was given';
comment on column models.fingerprint is 'hash of the weights [32 hex digits]';
comment on column models.tokenizer is 'hash of the tokenizer that made its tokens: models with the same one compare per token [64 hex digits]';
comment on column models.dtype is 'number type of its last run, with options such as quantization that change its numbers';
comment on column models.backend is 'what computed its last run';
comment on column models.commit is 'of a model or adapter of the hub, the commit that was scored';

comment on view skipped is 'One row per row of a source that could not be read, or example that a model could not score.';
comment on column skipped.example_id is 'the example; null where a row gave none';
comment on column skipped.source is 'the file or data set; null where a model skipped an example';
comment on column skipped.row is 'the line or row there, from 1';
comment on column skipped.model is 'the model that could not score it; null where a row could not be read';
comment on column skipped.reason is 'why, in a sentence';

comment on view gaps is 'One row per example that the aligned model and the whole ensemble have scored: its perplexity gap and rank.';
comment on column gaps.example_id is 'the example';
comment on column gaps.source is 'the file or data set it came from';
comment on column gaps.prompt is 'what comes before the answer, as people read it';
comment on column gaps.answer is 'the answer';
comment on column gaps.is_refusal is 'the paper''s keyword rule holds for the answer';
comment on column gaps.aligned_nll is 'loss of the aligned model [unit]';
comment on column gaps.misaligned_nll is 'mean loss of the ensemble [unit]';
comment on column gaps.misaligned_sd is 'standard deviation of the loss over the ensemble; null for a single model [unit]';
comment on column gaps.n_models is 'misaligned models in the mean [models]';
comment on column gaps.gap is '(misaligned_nll - aligned_nll) / (aligned_nll + epsilon), or by the metric that was asked for';
comment on column gaps.unit is 'unit of the losses: nats/token, or nats/byte where tokenizers differ';
comment on column gaps.rank is 'place by gap, from 1; ties by example_id';
comment on column gaps.rank_kept is 'rank among non-refusals; null for refusals';

comment on view model_gaps is 'One row per example of gaps and misaligned model: what that model alone says.';
comment on column model_gaps.example_id is 'the example';
comment on column model_gaps.model is 'the misaligned model';
comment on column model_gaps.nll is 'its loss [unit of gaps]';
comment on column model_gaps.gap is 'the gap with this model alone in the ensemble';
comment on column model_gaps.gap_without is 'the gap with this model left out; null where it is the only one';
comment on column model_gaps.ensemble_gap is 'the gap of the whole ensemble';
comment on column model_gaps.is_refusal is 'the paper''s keyword rule holds for the answer';

comment on view ranks is 'One row per example of gaps: its numbers without the texts. What the named queries ask: joins on `key` are faster, and a rank that is not asked for is not computed.';
comment on column ranks.example_id is 'the example';
comment on column ranks.key is 'the example_id as a number of 128 bits, to join and group on';
comment on column ranks.is_refusal is 'the paper''s keyword rule holds for the answer';
comment on column ranks.n_tokens is 'answer tokens of the aligned model [tokens]';
comment on column ranks.n_bytes is 'length of the answer in UTF-8 [bytes]';
comment on column ranks.aligned_nll is 'loss of the aligned model [unit]';
comment on column ranks.misaligned_nll is 'mean loss of the ensemble [unit]';
comment on column ranks.misaligned_sd is 'standard deviation of the loss over the ensemble; null for a single model [unit]';
comment on column ranks.lowest_nll is 'least loss in the ensemble [unit]';
comment on column ranks.highest_nll is 'largest loss in the ensemble [unit]';
comment on column ranks.n_models is 'misaligned models in the mean [models]';
comment on column ranks.gap is '(misaligned_nll - aligned_nll) / (aligned_nll + epsilon), or by the metric that was asked for';
comment on column ranks.unit is 'unit of the losses: nats/token, or nats/byte where tokenizers differ';
comment on column ranks.rank is 'place by gap, from 1; ties by example_id';
comment on column ranks.rank_kept is 'rank among non-refusals; null for refusals';

comment on view model_ranks is 'One row per example of ranks and misaligned model: model_gaps with `key` instead of the example_id.';
comment on column model_ranks.key is 'the example_id as a number of 128 bits, to join and group on';
comment on column model_ranks.model is 'the misaligned model';
comment on column model_ranks.nll is 'its loss [unit of ranks]';
comment on column model_ranks.gap is 'the gap with this model alone in the ensemble';
comment on column model_ranks.gap_without is 'the gap with this model left out; null where it is the only one';
comment on column model_ranks.ensemble_gap is 'the gap of the whole ensemble';
comment on column model_ranks.is_refusal is 'the paper''s keyword rule holds for the answer';
