-- What each view and column holds, with its unit in brackets. docs/sql.md is generated from these comments.
comment on view examples is 'One row per example: a prompt and the answer that is scored.';
comment on column examples.example_id is '32 hex digits: a hash of the messages, the same in every corpus';
comment on column examples.source is 'the file or dataset that it was read from';
comment on column examples.row is 'its line or row in the source, from 1';
comment on column examples.messages is 'the conversation, with the answer as the last turn; reasoning_content is null for turns without reasoning';
comment on column examples.prompt is 'everything before the answer, as readable text';
comment on column examples.answer is 'the last message';
comment on column examples.n_bytes is 'UTF-8 length of the answer and its reasoning [bytes]';
comment on column examples.is_refusal is 'whether the paper''s keyword rule flags the answer''s first ten words';
comment on column examples.meta is 'the other columns of the source [JSON object]';

comment on view scores is 'One row per example and model that has scored it.';
comment on column scores.example_id is 'the example';
comment on column scores.model is 'the model''s name in this corpus';
comment on column scores.n_tokens is 'number of answer tokens that were scored [tokens]';
comment on column scores.logprob is 'log-probability of the answer, summed over its tokens [nats]';
comment on column scores.truncated is 'whether the end of the answer was cut off to fit --max-length';
comment on column scores.nll is 'mean negative log-likelihood: -logprob / n_tokens [nats/token]';
comment on column scores.token_logprobs is 'log-probability of each answer token; null unless --keep-tokens was used [nats]';
comment on column scores.tokens is 'text of each answer token, in the aligned model''s rows; null unless --keep-tokens was used';

comment on table models is 'One row per model of the corpus.';
comment on column models.model is 'its name in this corpus';
comment on column models.role is 'aligned or misaligned';
comment on column models.reference is 'the folder or Hub id that was given';
comment on column models.fingerprint is 'hash of the weights [32 hex digits]';
comment on column models.tokenizer is 'hash of the tokenizer; models with the same hash are comparable per token [64 hex digits]';
comment on column models.dtype is 'number type of its last run, with options that change its numbers, such as quantization';
comment on column models.backend is 'the backend of its last run';
comment on column models.commit is 'for a model or adapter from the Hub, the commit that was scored';

comment on view skipped is 'One row for each source row that could not be read, and for each example that a model could not score.';
comment on column skipped.example_id is 'the example; null if the row could not be read';
comment on column skipped.source is 'the file or dataset; null if a model skipped the example';
comment on column skipped.row is 'the line or row in the source, from 1';
comment on column skipped.model is 'the model that could not score it; null if the row could not be read';
comment on column skipped.reason is 'why, in a sentence';

comment on view gaps is 'One row per example that the aligned model and the whole ensemble have scored: its perplexity gap and rank.';
comment on column gaps.example_id is 'the example';
comment on column gaps.source is 'the file or dataset that it was read from';
comment on column gaps.prompt is 'everything before the answer, as readable text';
comment on column gaps.answer is 'the answer';
comment on column gaps.is_refusal is 'whether the paper''s keyword rule flags the answer';
comment on column gaps.aligned_nll is 'NLL under the aligned model [unit]';
comment on column gaps.misaligned_nll is 'mean NLL over the ensemble [unit]';
comment on column gaps.misaligned_sd is 'standard deviation of the NLL over the ensemble; null for a single model [unit]';
comment on column gaps.n_models is 'number of misaligned models in the mean [models]';
comment on column gaps.gap is '(misaligned_nll - aligned_nll) / (aligned_nll + epsilon), or the value of another metric';
comment on column gaps.unit is 'unit of the NLLs: nats/token, or nats/byte if tokenizers differ';
comment on column gaps.rank is 'rank by gap, from 1; ties are broken by example_id';
comment on column gaps.rank_kept is 'rank among non-refusals; null for refusals';

comment on view model_gaps is 'One row per ranked example and misaligned model: its NLL, and the gap with and without it.';
comment on column model_gaps.example_id is 'the example';
comment on column model_gaps.model is 'the misaligned model';
comment on column model_gaps.nll is 'its NLL [unit of gaps]';
comment on column model_gaps.gap is 'the gap with only this model in the ensemble';
comment on column model_gaps.gap_without is 'the gap without this model; null if it is the only one';
comment on column model_gaps.ensemble_gap is 'the gap of the whole ensemble';
comment on column model_gaps.is_refusal is 'whether the paper''s keyword rule flags the answer';

comment on view ranks is 'The numbers of gaps without the texts. Faster for large corpora: joins use `key`, and ranks are computed only if selected.';
comment on column ranks.example_id is 'the example';
comment on column ranks.key is 'the example_id as a 128-bit number, for joins and groups';
comment on column ranks.is_refusal is 'whether the paper''s keyword rule flags the answer';
comment on column ranks.n_tokens is 'number of answer tokens, by the aligned model''s tokenizer [tokens]';
comment on column ranks.n_bytes is 'UTF-8 length of the answer [bytes]';
comment on column ranks.aligned_nll is 'NLL under the aligned model [unit]';
comment on column ranks.misaligned_nll is 'mean NLL over the ensemble [unit]';
comment on column ranks.misaligned_sd is 'standard deviation of the NLL over the ensemble; null for a single model [unit]';
comment on column ranks.lowest_nll is 'smallest NLL in the ensemble [unit]';
comment on column ranks.highest_nll is 'largest NLL in the ensemble [unit]';
comment on column ranks.n_models is 'number of misaligned models in the mean [models]';
comment on column ranks.gap is '(misaligned_nll - aligned_nll) / (aligned_nll + epsilon), or the value of another metric';
comment on column ranks.unit is 'unit of the NLLs: nats/token, or nats/byte if tokenizers differ';
comment on column ranks.rank is 'rank by gap, from 1; ties are broken by example_id';
comment on column ranks.rank_kept is 'rank among non-refusals; null for refusals';

comment on view model_ranks is 'The numbers of model_gaps, with `key` instead of the example_id.';
comment on column model_ranks.key is 'the example_id as a 128-bit number, for joins and groups';
comment on column model_ranks.model is 'the misaligned model';
comment on column model_ranks.nll is 'its NLL [unit of ranks]';
comment on column model_ranks.gap is 'the gap with only this model in the ensemble';
comment on column model_ranks.gap_without is 'the gap without this model; null if it is the only one';
comment on column model_ranks.ensemble_gap is 'the gap of the whole ensemble';
comment on column model_ranks.is_refusal is 'whether the paper''s keyword rule flags the answer';
