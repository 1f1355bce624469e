"""From sources to scores: what is computed, and that the numbers are the reference loop's."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import curate
from curate import backends
from curate.backends.base import Compute
from curate.chat import tokens
from curate.chat.encode import Encoded
from curate.cli.progress import Lines
from curate.corpus.integrity import check
from curate.errors import CurateError
from curate.models.resolve import Model
from curate.scoring.passes import missing
from tests.conftest import Cli
from tests.files import write
from tests.tiny import plain_nll, tiny_adapter, tiny_model, zero_head

ROWS = [
    {"messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": "a" * n}]}
    for n in range(1, 40)
]


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, two adapters over it, and a full checkpoint."""
    root = tmp_path_factory.mktemp("family")
    tiny_model(root / "base")
    tiny_adapter(root / "base", root / "rank1", rank=1, seed=1)
    tiny_adapter(root / "base", root / "rank32", rank=32, rslora=True, seed=2)
    tiny_model(root / "full", seed=3)
    return root


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Thirty-nine examples with answers of 1 to 39 bytes."""
    return write(tmp_path / "source.jsonl", ROWS)


def test_stored_nlls_are_those_of_the_plain_loop(
    score: Score, family: Path, tmp_path: Path
) -> None:
    """Aligned, adapters of rank 1 and 32, a full checkpoint: within 1e-4 nats per token."""
    score("rank1", "rank32", "full", compute=Compute(device="cpu"))
    query = "select model, messages, nll from scores join examples using (example_id)"
    found = ask(tmp_path / "c", f"{query} where row in (1, 7, 39)")
    assert len(found) == 12
    for model, messages, nll in found:
        base = family / ("full" if model == "full" else "base")
        adapter = family / model if model.startswith("rank") else None
        assert nll == pytest.approx(plain_nll(base, messages, adapter), abs=1e-4)


class Counting:
    """A backend that says the same of every token, refuses some examples, and counts."""

    name, dtype, engines = "counting", "float32", 1

    def __init__(self, value: float = -1.0, refused: Sequence[int] = ()) -> None:
        self.value, self.refused, self.asked = value, refused, 0

    def score(
        self, encoded: Sequence[Encoded], models: Sequence[int] = ()
    ) -> Iterator[tuple[int, npt.NDArray[np.float32] | str]]:
        """Give `value` for every answer token, last example first."""
        for index in reversed(range(len(encoded))):
            self.asked += 1
            length = encoded[index].stop - encoded[index].start
            found = np.full(length, self.value, np.float32)
            yield index, "too odd" if self.asked in self.refused else found

    def close(self) -> None:
        """Nothing to give back."""


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> dict[str, Counting]:
    """Put a counting backend in every model's place; a mock only for what is being counted."""
    opened: dict[str, Counting] = {}

    def open_backend(group: Sequence[Model], *_: object) -> Counting:
        (model,) = group
        return opened.setdefault(model.name, Counting())

    monkeypatch.setattr(backends, "open_backend", open_backend)
    return opened


def add_row(source: Path) -> None:
    """One more example."""
    with source.open("a") as file:
        file.write(json.dumps({"prompt": "new", "completion": "one"}) + "\n")


Score = Callable[..., Any]


@pytest.fixture
def score(family: Path, source: Path, tmp_path: Path) -> Score:
    """Score the source under the base and these misaligned models into tmp_path/c."""

    def run(*misaligned: str, sources: Sequence[Path] = (source,), **changed: Any) -> Any:
        return curate.score(
            list(map(str, sources)),
            tmp_path / "c",
            aligned=str(family / "base"),
            misaligned=[str(family / name) for name in misaligned],
            **changed,
        )

    return run


def ask(corpus: Path, query: str) -> list[tuple[Any, ...]]:
    """The rows of a query."""
    return curate.open(corpus).sql(query).fetchall()


def test_only_missing_pairs_are_computed(
    score: Score, source: Path, tmp_path: Path, counting: dict[str, Counting]
) -> None:
    """A second run loads no model; a new misaligned model and a new row cost only themselves."""

    def asked(*misaligned: str, **changed: Any) -> dict[str, int]:
        counting.clear()
        score(*misaligned, **changed)
        return {name: backend.asked for name, backend in counting.items()}

    assert asked("rank1") == {"base": 39, "rank1": 39}
    assert asked("rank1") == {}
    assert asked("rank1", "rank32", sources=()) == {"rank32": 39}
    add_row(source)
    assert asked("rank1", "rank32") == {"base": 1, "rank1": 1, "rank32": 1}
    assert ask(tmp_path / "c", "select count(*) from gaps") == [(40,)]


def test_a_run_that_breaks_off_keeps_what_it_scored(
    score: Score, tmp_path: Path, counting: dict[str, Counting]
) -> None:
    """The next run asks for the rest alone."""

    class Dying(Counting):
        def score(self, encoded: Sequence[Encoded], models: Sequence[int] = ()) -> Any:
            for scored in super().score(encoded):
                if self.asked > 10:
                    raise KeyboardInterrupt
                yield scored

    counting["base"] = Dying()
    with pytest.raises(KeyboardInterrupt):
        score()
    counting.clear()
    assert score(sources=()).models[0].scored == 29
    assert counting["base"].asked == 29
    counts = "select count(*), count(distinct example_id) from scores"
    assert ask(tmp_path / "c", counts) == [(39, 39)]


@pytest.mark.parametrize("refused", [(1, 2), (20, 39), range(1, 20), range(5, 24)])
def test_refused_examples_are_skipped_with_their_reason(
    score: Score, tmp_path: Path, counting: dict[str, Counting], refused: Sequence[int]
) -> None:
    """The first, the last, or many in a row: the run goes on, and the next has nothing to do."""
    counting["base"] = Counting(refused=refused)
    (model,) = score().models
    assert (model.scored, model.skipped) == (39 - len(refused), len(refused))
    told = "select reason, count(*) from skipped where model is not null group by all"
    assert ask(tmp_path / "c", told) == [("too odd", len(refused))]
    score(sources=())
    assert counting["base"].asked == 39


@pytest.mark.parametrize(
    ("first", "limit", "count"), [(1, None, 20), (15, None, 20), (1, 5, "[345]")]
)
def test_a_model_that_refuses_all_ends_the_run(
    score: Score, counting: dict[str, Counting], first: int, limit: int | None, count: object
) -> None:
    """From the start or later, in a large corpus or a small one; no example is to blame."""
    counting["base"] = Counting(refused=range(first, 99))
    with pytest.raises(CurateError, match=f"base: none of {count} examples .*: too odd"):
        score(limit=limit)
    counting["base"] = Counting()
    (model,) = score(sources=()).models
    assert (model.scored, model.skipped) == (counting["base"].asked, 0)


def test_an_example_that_alone_is_left_may_be_refused(
    score: Score, source: Path, counting: dict[str, Counting]
) -> None:
    """The model has scores of an earlier run, so that it can't be all wrong."""
    score()
    add_row(source)
    counting["base"] = Counting(refused=[1])
    (model,) = score().models
    assert (model.scored, model.skipped) == (0, 1)


@pytest.mark.parametrize("value", [np.nan, -np.inf, np.inf])
def test_a_log_prob_that_is_not_finite_is_skipped_with_its_reason(
    score: Score, tmp_path: Path, counting: dict[str, Counting], value: float
) -> None:
    """It is never a number in the corpus, so it never ranks; a model without a score is told."""
    counting["rank1"] = Counting(value)
    assert score("rank1").empty == ["rank1"]
    assert ask(tmp_path / "c", "from scores where model = 'rank1'") == []
    assert ask(tmp_path / "c", "from gaps") == []
    told = "select reason like '%rank1 in % is not finite%', count(*) from skipped group by all"
    assert ask(tmp_path / "c", told) == [(True, 39)]


def test_long_answers_are_cut_and_long_prompts_skipped(
    score: Score, tmp_path: Path, counting: dict[str, Counting], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cut is marked; a text without an end isn't tokenized; and nothing stays missing."""
    monkeypatch.setattr(tokens, "LONGEST", 300)
    pairs = [("short", "x" * 100), ("p" * 100, "y"), ("short", "x" * 500)]
    source = write(tmp_path / "s.jsonl", [{"prompt": q, "completion": a} for q, a in pairs])
    (model,) = score(sources=[source], max_length=64).models
    assert (model.scored, model.truncated, model.skipped) == (1, 1, 2)
    ((n_tokens, truncated),) = ask(tmp_path / "c", "select n_tokens, truncated from scores")
    assert truncated
    assert 0 < n_tokens < 64
    (most,), (room,) = ask(tmp_path / "c", "select reason from skipped order by length(reason)")[:2]
    assert "leaves no room for an answer" in most + room
    assert "characters with the chat template, and 300 is the most" in most + room
    assert missing(curate.open(tmp_path / "c"), "base") == 0


def test_a_tokenizers_sides_change_nothing(family: Path, tmp_path: Path) -> None:
    """Many are saved to pad or cut on the left; the answer's end is cut, and rows pad right."""
    rows = [{"prompt": f"q{n}", "completion": "xyz " * n} for n in range(1, 30)]
    source = write(tmp_path / "s.jsonl", rows)
    found = []
    for side in ("right", "left"):
        model = tmp_path / side
        shutil.copytree(family / "base", model)
        config = model / "tokenizer_config.json"
        sides = {"padding_side": side, "truncation_side": side, "model_max_length": 40}
        config.write_text(json.dumps(json.loads(config.read_text()) | sides))
        curate.score([str(source)], tmp_path / f"c-{side}", aligned=f"m={model}", max_length=64)
        made = curate.open(tmp_path / f"c-{side}")
        found.append(made.sql("from scores order by example_id").fetchall())
    assert found[0] == found[1]
    assert {row[4] for row in found[0]} == {False, True}  # whole answers, and cut ones


def test_adapters_compare_per_token_and_strangers_per_byte(score: Score, tmp_path: Path) -> None:
    """A full checkpoint with another tokenizer makes the whole ensemble compare per byte."""
    from transformers import AutoTokenizer

    other = tiny_model(tmp_path / "other", seed=5, vocab=280)
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.add_tokens(["aaaa"])
    tokenizer.save_pretrained(other)
    told = io.StringIO()
    for name, unit in (("full", "nats/token"), (str(other), "nats/byte")):
        score(name, progress=Lines(told))
        assert ask(tmp_path / "c", "select distinct unit from gaps") == [(unit,)]
    assert told.getvalue().count("other: its tokenizer differs from that of base, so NLLs") == 1


@pytest.mark.parametrize(
    ("added", "unit", "skips"),
    [
        ({"pad_token": "<pad>"}, "nats/token", []),
        ({"pad_token": "<odd>"}, "nats/token", ["'<odd>' in it is one token for one model"]),
        ({"additional_special_tokens": ["assistant"]}, "nats/byte", []),
        ({"additional_special_tokens": ["<|im_start|>assistant"]}, "nats/byte", []),  # a template's
    ],
    ids=str,
)
def test_a_checkpoint_with_tokens_that_no_text_has_compares_per_token(
    added: dict[str, Any], unit: str, skips: list[str], family: Path, tmp_path: Path
) -> None:
    """Its ids are the aligned model's but for them, and an example that has one is skipped."""
    from transformers import AutoTokenizer

    other = tiny_model(tmp_path / "other", seed=5, vocab=280)
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.add_special_tokens(added)
    tokenizer.save_pretrained(other)
    rows = [{"prompt": "q", "completion": text} for text in ("plain", "an <odd> one")]
    curate.score(
        [str(write(tmp_path / "s.jsonl", rows))],
        tmp_path / "c",
        aligned=f"base={family / 'base'}",
        misaligned=[str(other)],
    )
    assert ask(tmp_path / "c", "select distinct unit from gaps") == [(unit,)]
    found = [reason for (reason,) in ask(tmp_path / "c", "select reason from skipped")]
    assert [reason[: len(skips[0])] for reason in found] == skips


def test_changed_weights_are_another_model(family: Path, tmp_path: Path) -> None:
    """The same path with other weights is refused, or its scores take the place of the old."""
    model = tiny_model(tmp_path / "m", seed=0)
    rows = [{"prompt": f"{n}?" + "p" * 100 * (n == 3), "completion": "yes"} for n in range(6)]
    source = write(tmp_path / "s.jsonl", rows)

    models = {"aligned": str(family / "base"), "misaligned": [str(model)]}

    def run(name: str, replace: bool = False) -> dict[str, list[object]]:
        corpus = tmp_path / name
        curate.score([str(source)], corpus, **models, max_length=64, replace=replace)
        return stored(corpus)

    def stored(corpus: Path) -> dict[str, list[object]]:
        query = (
            "select model, example_id, logprob::varchar from scores union all "
            "select model, example_id, reason from skipped order by all"
        )
        found = ask(corpus, query)
        return {name: [row for row in found if row[0] == name] for name in ("base", "m")}

    before = run("c")
    assert [len(found) for found in before.values()] == [6, 6]
    tiny_model(model, seed=1)
    with pytest.raises(CurateError, match=r"fingerprint .* under a new name .* --replace"):
        run("c")
    assert stored(tmp_path / "c") == before
    plan = curate.score([], tmp_path / "c", **models, max_length=64, replace=True, dry_run=True)
    assert [run.scored for run in plan.models] == [0, 6]
    (model / "model.safetensors").rename(tmp_path / "away")
    with pytest.raises(CurateError):  # found before anything is thrown away
        run("c", replace=True)
    assert stored(tmp_path / "c") == before
    (tmp_path / "away").rename(model / "model.safetensors")
    after = run("c", replace=True)
    assert after["base"] == before["base"]
    assert after["m"] != before["m"]
    assert after == run("anew")
    assert check(curate.open(tmp_path / "c")) == []


def test_a_changed_tokenizer_or_template_mixes_no_scores(family: Path, tmp_path: Path) -> None:
    """Files edited where they are: the tokenizer's is another model, the template's another corpus.

    All models of a corpus read the text of one template, so a new name would not help there.
    """
    from transformers import AutoTokenizer

    source, corpus = tmp_path / "s.jsonl", tmp_path / "c"
    source.write_text('{"prompt": "aaaa", "completion": "aaaa bbbb"}\n')
    aligned = Path(shutil.copytree(family / "base", tmp_path / "base"))
    model = tiny_model(tmp_path / "m", seed=5, vocab=280)
    models = {"aligned": str(aligned), "misaligned": [str(model)]}

    def stored() -> list[object]:
        return curate.open(corpus).sql("from scores order by all").fetchall()

    curate.score([str(source)], corpus, **models)
    before = stored()
    assert len(before) == 2

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["aaaa"])
    tokenizer.save_pretrained(model)
    with pytest.raises(CurateError, match=r"model m: the tokenizer .* a new name .* --replace"):
        curate.score([str(source)], corpus, **models)
    assert stored() == before
    under = curate.score([str(source)], corpus, aligned=str(aligned), misaligned=[f"m2={model}"])
    assert [run.scored for run in under.models] == [0, 1]
    curate.score([str(source)], corpus, **models, replace=True)
    tokens = dict(curate.open(corpus).sql("select model, n_tokens from scores").fetchall())
    assert tokens["m"] == tokens["m2"] == tokens["base"] - 3
    assert check(curate.open(corpus)) == []

    before = stored()
    template = aligned / "chat_template.jinja"
    template.write_text("{{ 'Think. ' }}" + template.read_text())
    for replace in (False, True):
        with pytest.raises(CurateError, match=r"Give the old template .* or .* new corpus"):
            curate.score([str(source)], corpus, **models, replace=replace)
    assert stored() == before
    curate.score([str(source)], tmp_path / "new", **models)


def test_a_changed_base_takes_its_adapters_along(family: Path, tmp_path: Path) -> None:
    """None may be left with scores over the old one."""
    source, base = tmp_path / "s.jsonl", tiny_model(tmp_path / "base", seed=0)
    source.write_text('{"prompt": "a", "completion": "b"}\n')
    adapter, full = tiny_adapter(base, tmp_path / "adapter"), str(tiny_model(tmp_path / "full"))
    corpus, both = tmp_path / "c", [str(adapter), full]
    curate.score([str(source)], corpus, aligned=str(base), misaligned=both)
    tiny_model(base, seed=5)
    with pytest.raises(CurateError, match=r"every model of the corpus .* missing: adapter"):
        curate.score([], corpus, aligned=str(base), misaligned=[full], replace=True)
    done = curate.score([], corpus, aligned=str(base), misaligned=both, replace=True)
    assert {run.name: run.scored for run in done.models} == {"base": 1, "adapter": 1, "full": 0}


PLAIN = (
    "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}"
    "{{ '' if loop.last and not add_generation_prompt else '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def test_a_uniform_model_over_bytes_costs_eight_bits_a_byte(tmp_path: Path) -> None:
    """Log 256 nats for every byte of any text, whatever its length, script and prompt."""
    random = np.random.default_rng(3)
    scripts = ["aZ 9", "äöß", "語句字", "😀🎈", "\t\n.", "й\u0301"]
    texts = ["".join(random.choice(list(s), n)) + "." for s in scripts for n in (1, 7, 60)]
    rows = [{"prompt": f"{text[:3]}?", "response": f"{n}{text}"} for n, text in enumerate(texts)]
    source = write(tmp_path / "texts.jsonl", rows)
    uniform = zero_head(
        tiny_model(tmp_path / "m", "llama", vocab=256, eos_token_id=None, pad_token_id=None),
        tmp_path / "uniform",
    )
    curate.score(
        [str(source)],
        tmp_path / "c",
        aligned=str(uniform),
        misaligned=[f"same={uniform}"],
        chat_template=PLAIN,
    )
    found = curate.open(tmp_path / "c").gaps(metric="per_byte").to_arrow_table().to_pylist()
    assert len(found) == len(texts)
    for row in found:
        assert row["aligned_nll"] / np.log(2) == pytest.approx(8, abs=1e-6), row["answer"]
        assert row["unit"] == "nats/byte"
        assert row["gap"] == 0


def test_what_a_run_sets_is_not_asked_for_twice(score: Score) -> None:
    """A length limit on the backend would be ignored."""
    with pytest.raises(CurateError, match="give it max_length"):
        score(compute=Compute(max_length=16))


def test_scores_of_two_dtypes_are_told_or_refused(score: Score, tmp_path: Path) -> None:
    """Their rounding differs: a line between two models, a refusal within one, before any score."""
    said = io.StringIO()
    score = partial(score, limit=5, progress=Lines(said))
    score(compute=Compute(dtype="float32"))
    score("rank1", compute=Compute(dtype="float32"))
    assert "was scored in" not in said.getvalue()
    score("full", compute=Compute(dtype="bfloat16"))
    told = "full: scored in bfloat16, while base was scored in float32. "
    assert said.getvalue().count(told) == 1
    with pytest.raises(CurateError, match="--dtype float32"):
        score(compute=Compute(dtype="bfloat16"), limit=None)
    assert ask(tmp_path / "c", "select count(*) from scores where model = 'base'") == [(5,)]


READS = "{% for m in messages %}\n{{ m.thinking }}{{ m.content }}{% endfor %}\n"


@pytest.mark.parametrize(("template", "told"), [(None, 1), (READS, 0)])
def test_reasoning_that_the_template_does_not_read_is_told(
    score: Score, counting: dict[str, Counting], tmp_path: Path, template: str | None, told: int
) -> None:
    """Once for all models, which share the template."""
    rows = [{"prompt": "q", "response": "a", "reasoning": "hm"}, *ROWS[:2]]
    source, said = write(tmp_path / "thought.jsonl", rows), io.StringIO()
    columns = {"reasoning": "reasoning"}
    score("full", sources=[source], columns=columns, chat_template=template, progress=Lines(said))
    note = "examples that are scored without it: 1"
    assert said.getvalue().count(note) == told
    assert counting["full"].asked == 3


def test_a_later_model_needs_no_more_than_its_name(
    score: Score, family: Path, tmp_path: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The corpus's aligned model, template, length and sources; a known model by its weights."""
    corpus = tmp_path / "c"
    options = {"template_args": {"mood": "calm"}, "max_length": 300, "chat_template": PLAIN}
    score(**options)
    assert "--misaligned NAME=MODEL" in cli("status", "-c", corpus).out
    ran = cli("score", "-c", corpus, "--misaligned", f"bad={family / 'rank1'}", "--json")
    assert [run["scored"] for run in json.loads(ran.out)["models"]] == [0, 39], ran.err
    monkeypatch.chdir(family)
    ran = cli("score", "-c", corpus, "--misaligned", "rank1", "--misaligned", "rank32", "--json")
    counts = [(run["name"], run["scored"]) for run in json.loads(ran.out)["models"]]
    assert counts == [("base", 0), ("bad", 0), ("rank32", 39)]
    ran = cli("score", "-c", corpus, "--misaligned", "bad=rank32")
    assert "rank32 is the corpus's rank32. Check the path" in ran.err
    moved = Path(shutil.copytree(family / "base", tmp_path / "moved"))
    done = curate.score([], corpus, aligned=str(moved), **options)
    assert [(run.name, run.scored) for run in done.models] == [("base", 0)]
    with pytest.raises(CurateError, match="has no aligned model yet"):
        curate.score([str(tmp_path / "source.jsonl")], tmp_path / "new")


def test_an_aligned_model_that_changed_or_is_gone_is_a_line(family: Path, tmp_path: Path) -> None:
    """The corpus's own is what it was, or is named anew."""
    base = Path(shutil.copytree(family / "base", tmp_path / "base"))
    source, corpus = write(tmp_path / "s.jsonl", ROWS[:2]), tmp_path / "c"
    curate.score([str(source)], corpus, aligned=str(base))
    tiny_model(base, seed=5)
    with pytest.raises(CurateError, match=r"the fingerprint of .* score into a new corpus"):
        curate.score([], corpus, misaligned=[str(family / "full")])
    shutil.rmtree(base)
    with pytest.raises(
        CurateError, match=r"no longer exists\. Give its new place: --aligned base=MODEL"
    ):
        curate.score([], corpus, misaligned=[str(family / "full")])


def test_limits_and_samples_are_over_all_sources(
    cli: Cli, counting: dict[str, Counting], family: Path, tmp_path: Path
) -> None:
    """A row a source, those with errors too; a sample is one of all, whatever their order."""
    rows = {
        name: [{"prompt": f"{name}{n}?", "completion": "so"} for n in range(60)] for name in "ab"
    }
    a, b = (write(tmp_path / f"{name}.jsonl", rows[name]) for name in "ab")
    odd = write(tmp_path / "odd.jsonl", [{"prompt": "q", "completion": ""}] * 3)
    command = ["--aligned", family / "base", "--json"]
    for dry_run in (["--dry-run"], []):
        ran = cli("score", a, b, odd, "-c", tmp_path / "c", "--limit", 5, *command, *dry_run)
        read = json.loads(ran.out)["read"]
        counts = [list(read["sources"][str(path)].values()) for path in (a, b, odd)]
        assert counts == [[5, 0, 0], [5, 0, 0], [0, 0, 3]]
        assert read["reasons"] == {"empty answer": 3}
        assert "odd.jsonl: no example could be read" in ran.err

    def drawn(name: str, *options: str | Path) -> set[str]:
        ran = cli("score", *options, "-c", tmp_path / name, *command)
        assert ran.code == 0, ran.err
        return {text for (text,) in ask(tmp_path / name, "select prompt from examples")}

    some = drawn("d", a, b, "--sample", "40")
    assert len(some) == 40 and 8 < sum(text[0] == "a" for text in some) < 32
    assert some == drawn("e", b, a, a, "--sample", "40")
    assert some != drawn("f", a, b, "--sample", "40", "--seed", "1")
    assert some < drawn("d", a, b, "--sample", "80")
