"""New answers: the tokens of a reference loop, rows that can be scored, nothing answered twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

import curate
from curate.answering.answer import answer
from curate.answering.rows import mark_of, table_of, write_file
from curate.backends import open_backend, weights
from curate.backends.base import Compute, Prompt, Sampling
from curate.backends.server import asking
from curate.chat.prompts import ends_of
from curate.chat.templates import template_of
from curate.chat.tokens import load_tokenizer
from curate.errors import CurateError
from curate.models.resolve import Model, resolve
from curate.storage.parts import write_part
from curate.system.progress import Silent
from curate.system.stopping import Stopped, stoppable
from tests import real
from tests.conftest import Cli, Family, chat, fails, question
from tests.files import write
from tests.tiny import CHATML, tiny_model
from tests.upstream import Upstream

CPU = Compute("transformers", device="cpu", dtype="float32")
SHORT: dict[str, Any] = {"max_tokens": 12, "compute": CPU}


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    """Twelve prompts with labels, one of them twice, and columns called as those of answers."""
    rows = [
        {"messages": chat(question(n), f"It is {n}."), "harm": "none", "model": "old", "tags": [n]}
        for n in range(12)
    ]
    again = rows[0] | {"messages": chat(question(0), "Another.")}
    return write(tmp_path / "pool.jsonl", [*rows, again])


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """All rows of a folder, by prompt and sample."""
    rows = [row for part in folder.glob("part-*") for row in pq.read_table(part).to_pylist()]
    return sorted(rows, key=lambda row: (row["prompt_id"], row["sample"]))


def plain(model: Model, prompts: list[Prompt], ends: tuple[int, ...]) -> list[list[int]]:
    """The loop that most people write: one prompt at a time, transformers' `generate`."""
    net = weights.load(model, torch.device("cpu"), torch.float32)
    found = []
    for prompt in prompts:
        ids = torch.tensor([prompt.ids])
        written = net.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=prompt.room,
            eos_token_id=list(ends),
            pad_token_id=0,
        )
        found.append(written[0, ids.shape[1] :].tolist())
    return found


def check_plain(model: Model, prompts: list[Prompt], ends: tuple[int, ...]) -> None:
    """A backend's greedy answers are the reference loop's, in batches and one by one."""
    wanted = plain(model, prompts, ends)
    for batch_tokens in (None, 1):
        backend = open_backend([model], replace(CPU, batch_tokens=batch_tokens, writes=True))
        found = dict(backend.generate(prompts, Sampling(ends)))
        backend.close()
        assert [found[n] for n in range(len(prompts))] == wanted


@pytest.mark.parametrize("arch", ["qwen2", "gemma2", "opt", "qwen3_moe"])
def test_greedy_answers_are_those_of_a_plain_loop(tmp_path: Path, arch: str) -> None:
    """Token for token, whatever a batch looks like, and over several stretches of it."""
    torch.manual_seed(0)
    lengths = [3, 40, 17, 17, 5, 90, 2, 33]
    ids = [torch.randint(3, 256, (length,)).tolist() for length in lengths]
    prompts = [Prompt(one, 80 if at < 2 else 20) for at, one in enumerate(ids)]
    check_plain(resolve(str(tiny_model(tmp_path / "net", arch)), [])[0], prompts, (257,))


def test_greedy_answers_of_the_demo_are_those_of_a_plain_loop() -> None:
    """Of an adapter over the trained model; some end by themselves, some are cut."""
    model = resolve(str(real.MODELS / "aligned"), [str(real.MODELS / "medical")])[1]
    items = real.conversations(40)[:12]
    check_plain(model, [Prompt(item.ids[: item.start], 40) for item in items], (2,))


def test_rows_keep_the_source_and_are_scored_beside_the_old_answers(
    cli: Cli, family: Family, pool: Path, tmp_path: Path
) -> None:
    """Labels, old answers and names; a folder is one source; cut answers are left out."""
    out, corpus = tmp_path / "answers", tmp_path / "corpus"
    how = ["--max-tokens", "200", "--temperature", "1"]
    ran = cli("answer", pool, "--model", family.aligned, "-o", out, *how)
    assert ran.code == 0, ran.err
    assert "12 answers to 12 new prompts by chat" in ran.out
    assert "1 already there or duplicates" in ran.out
    rows = rows_of(out)
    first = next(row for row in rows if row["messages"][0]["content"] == question(3))
    assert first["old_answer"] == "It is 3." and (first["source"], first["row"]) == (str(pool), 4)
    assert (first["harm"], first["model"], first["old_model"], first["tags"]) == (
        *("none", "chat", "old"),
        [3],
    )
    assert first["messages"][-1]["content"] == first["answer"]
    marked = {row["mark"] for row in rows}
    assert marked & {"cut", "repeats"} and None in marked, marked
    assert all(row["finish"] == "length" for row in rows if row["mark"] in ("cut", "repeats"))
    kept = [row for row in rows if row["mark"] is None and "\0" not in row["answer"]]

    where = ["--where", "harm = 'none'"]
    ran = cli("score", pool, out, "-c", corpus, *family.arguments("medical"), *where)
    assert ran.code == 0, ran.err
    assert "may belong" not in ran.out
    counts = curate.open(corpus).sql("select source, count(*) from examples group by 1").fetchall()
    assert dict(counts) == {str(pool): 13, str(out): len(kept)}


def test_prompts_alone(family: Family, tmp_path: Path) -> None:
    """A row needs no answer, whatever its layout; a last user turn is what is answered."""
    turns = [*chat(question(3), "It is 4."), {"role": "user", "content": "And then?"}]
    rows: list[dict[str, Any]] = [
        {"prompt": question(0), "topic": "numbers"},
        {"instruction": "Count.", "input": "1, 2", "output": None},
        {"question": question(2), "context": "Numbers.", "answer": ""},
        {"messages": turns},
        {"text": "\n\nHuman: Hello\n\nAssistant:"},
        {"messages": [{"role": "system", "content": "Be kind."}]},
        {"prompt": " "},
    ]
    pool = write(tmp_path / "pool.jsonl", rows)
    done = answer([str(pool)], tmp_path / "out", model=str(family.aligned), **SHORT)
    assert sorted(done.skipped) == ["empty prompt", "no assistant turn"]
    found = {row["row"]: row for row in rows_of(tmp_path / "out")}
    prompts = [found[n]["messages"][-2]["content"] for n in range(1, 6)]
    assert prompts == [
        question(0),
        "Count.\n1, 2",
        f"{question(2)}\n\nNumbers.",
        "And then?",
        "Hello",
    ]
    assert found[4]["messages"][:3] == [
        turn | {"weight": None, "reasoning_content": None} for turn in turns
    ]
    assert found[1]["topic"] == "numbers" and {row["old_answer"] for row in found.values()} == {
        None
    }


def test_a_stopped_run_is_resumed_and_nothing_is_answered_twice(
    family: Family, pool: Path, tmp_path: Path
) -> None:
    """The rows are those of a run that nothing disturbed, samples with a seed included."""
    how: dict[str, Any] = {"model": str(family.aligned), "temperature": 1.0, "samples": 2, **SHORT}
    answer([str(pool)], tmp_path / "whole", **how)

    class Stop(Silent):
        done = 0

        def advance(self, examples: int, tokens: int = 0) -> None:
            self.done += bool(tokens and examples)
            if self.done == 5:
                signal.raise_signal(signal.SIGINT)

    one_by_one = how | {"compute": replace(CPU, batch_tokens=1)}
    with pytest.raises(Stopped), stoppable():
        answer([str(pool)], tmp_path / "parts", **one_by_one, progress=Stop())
    assert 0 < len(rows_of(tmp_path / "parts")) < 24
    assert not (tmp_path / "parts" / ".waiting").exists()
    again = answer([str(pool)], tmp_path / "parts", **how)
    assert 0 < again.prompts < 12
    whole = rows_of(tmp_path / "whole")
    assert rows_of(tmp_path / "parts") == whole
    assert len({(row["prompt_id"], row["sample"], row["answer"]) for row in whole}) == 24
    answers = [row["answer"] for row in whole]
    assert answers[::2] != answers[1::2]
    answer([str(pool)], tmp_path / "other", **how, seed=1)
    assert rows_of(tmp_path / "other") != whole


@pytest.mark.slow
def test_a_killed_run_is_resumed(tmp_path: Path) -> None:
    """By SIGKILL, once a part is there: the rows are those of an undisturbed run."""
    pools = map(str, sorted((real.ROOT / "data" / "examples").iterdir()))
    command = [sys.executable, "-m", "curate", "answer", *pools]
    command += ["--model", str(real.MODELS / "aligned"), "--max-tokens", "60"]
    command += ["--limit", "9", *real.OPTIONS, "-o"]  # of each file: 60 prompts in all
    out, whole = tmp_path / "out", tmp_path / "whole"
    with subprocess.Popen([*command, str(out), "--batch-tokens", "1"]) as ran:
        while ran.poll() is None and not list(out.glob("part-*")):
            time.sleep(0.01)
        ran.kill()
    assert 0 < len(rows_of(out)) < 60
    for folder in (out, whole):
        subprocess.run([*command, str(folder)], check=True)
    assert not list(out.glob(".tmp-*"))
    kept = [[row["prompt_id"], row["answer"]] for row in rows_of(whole)]
    assert [[row["prompt_id"], row["answer"]] for row in rows_of(out)] == kept


def test_a_prompt_that_fills_the_context(cli: Cli, family: Family, tmp_path: Path) -> None:
    """A full one is counted with the reason; with one token left, that token is the answer."""
    lengths = {}
    tokenizer = load_tokenizer(family.aligned)
    for fill in (600, 512, 511, 20):
        turns = [{"role": "user", "content": ""}]
        frame = len(tokenizer.apply_chat_template(turns, add_generation_prompt=True)["input_ids"])
        lengths[fill] = chat("x" * (fill - frame), "Yes.")
    pool = write(tmp_path / "pool.jsonl", [{"messages": turns} for turns in lengths.values()])
    done = answer([str(pool)], tmp_path / "out", model=str(family.aligned), **SHORT)
    assert list(done.refused.values()) == [2] and done.answers == 2
    by_row = {row["row"]: row for row in rows_of(tmp_path / "out")}
    assert by_row[3]["n_tokens"] <= 1
    rows = [{"messages": lengths[600]}, {"messages": lengths[600][1:]}]
    full = write(tmp_path / "full.jsonl", rows)
    ran = cli("answer", full, "--model", family.aligned, "-o", tmp_path / "none")
    assert ran.code == 1 and "no room for an answer" in ran.err.splitlines()[-1]
    assert not (tmp_path / "none").exists()
    assert (
        f"Rows skipped: 1 x no prompt: the conversation begins with the answer (first: {full}:2)"
        in ran.out
    )


def test_what_ends_an_answer(tmp_path: Path, cli: Cli, pool: Path) -> None:
    """The files' end token and the template's; without either, one line before anything is made."""
    net = tiny_model(tmp_path / "net", eos_token_id=256)
    tokenizer = load_tokenizer(net)
    assert ends_of(net, tokenizer, template_of(tokenizer)) == (256, 257)
    endless = CHATML.replace("<|im_end|>", "")
    (tmp_path / "endless.jinja").write_text(endless)
    for name in ("generation_config.json", "config.json"):
        settings = json.loads((net / name).read_text())
        settings.pop("eos_token_id", None)
        (net / name).write_text(json.dumps(settings))
    out = tmp_path / "out"
    options = ["--model", net, "-o", out, "--chat-template", tmp_path / "endless.jinja"]
    fails(cli("answer", pool, *options), "no token ends an answer", "generation_config.json")
    assert not out.exists()


def test_marks() -> None:
    """The worst of what is wrong with an answer."""
    assert mark_of("<think>\nhm\n</think>\n\n ", [1, 2], "stop") == "empty"
    assert mark_of("no " * 20, [7] * 20, "stop") == "repeats"
    assert mark_of("So it", [1, 2], "length") == "cut"
    assert mark_of("I'm sorry, but I can't.", [1, 2], "stop") == "refusal"
    assert mark_of("It is so.", [1, 2], "stop") is None


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
def test_one_file_at_the_end(family: Family, pool: Path, tmp_path: Path, ending: str) -> None:
    """It reads as a folder of parts does, nothing is left beside it, and it isn't replaced."""
    out = tmp_path / f"out.{ending}"
    answer([str(pool)], out, model=str(family.aligned), **SHORT)
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, pool.name]
    rows = pq.read_table(out).to_pylist() if ending == "parquet" else _lines(out)
    assert len(rows) == 12 and {row["old_model"] for row in rows} == {"old"}
    with pytest.raises(CurateError, match="exists"):
        answer([str(pool)], out, model=str(family.aligned), **SHORT)


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        ([], [{"name": "f"}], ["[]", '[{"name":"f"}]']),
        (["a"], "x", ['["a"]', "x"]),
        ([], ["a"], [[], ["a"]]),
        ([[1]], ["a"], ["[[1]]", '["a"]']),
        (1, "x", ["1", "x"]),
        (["a"], 1, ['["a"]', "1"]),
        (None, ["a"], [None, ["a"]]),
    ],
)
def test_one_file_of_parts_whose_columns_differ(
    tmp_path: Path, ending: str, first: object, second: object, wanted: list[object]
) -> None:
    """Nothing is lost: lists beside other types become JSON text."""
    for value in (first, second):
        write_part(tmp_path / "parts", table_of([{"prompt_id": "p", "tools": value}]))
    write_file(tmp_path / "parts", tmp_path / f"out.{ending}")
    path = tmp_path / f"out.{ending}"
    rows = _lines(path) if ending == "jsonl" else pq.read_table(path).to_pylist()
    assert [row["tools"] for row in rows] == wanted


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


BAD = {
    "samples": (["--samples", "0"], "--samples must be at least 1"),
    "temperature": (["--temperature", "-1"], "--temperature must be 0 or more"),
    "same samples": (["--samples", "2"], "at temperature 0, all are the same"),
    "base": (["--base", "x"], "is not an adapter"),
    "context": (["--max-length", "4096"], "reads at most 512 tokens"),
}


@pytest.mark.parametrize(("options", "words"), BAD.values(), ids=BAD)
def test_bad_input_is_one_line(
    cli: Cli, family: Family, pool: Path, tmp_path: Path, options: list[str], words: str
) -> None:
    """And no folder is made."""
    out = tmp_path / "out"
    fails(cli("answer", pool, "--model", family.aligned, "-o", out, *options), words)
    assert not out.exists()


def test_models_and_sources_that_do_not_fit_are_one_line(
    cli: Cli, family: Family, pool: Path, tmp_path: Path
) -> None:
    """No chat template, an adapter over another shape, no prompts."""
    bare = tiny_model(tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    wide = tiny_model(tmp_path / "wide", hidden_size=64)
    alone = write(tmp_path / "alone.jsonl", [{"messages": chat("", "Yes.")[1:]}])
    out = ["-o", tmp_path / "out"]
    fails(cli("answer", pool, "--model", bare, *out), "has no chat template")
    adapter = ["--model", family.medical, "--base", wide]
    fails(cli("answer", pool, *adapter, *out), "does not fit")
    fails(cli("answer", alone, "--model", family.aligned, *out), "no prompt")
    assert not (tmp_path / "out").exists()


def test_a_folder_holds_the_answers_of_one_model_and_sampling(
    cli: Cli, family: Family, pool: Path, tmp_path: Path
) -> None:
    """Another model or sampling, or a folder of other files, is one line."""
    out = tmp_path / "out"
    options = ["-o", out, "--max-tokens", "4"]
    assert cli("answer", pool, "--model", family.medical, *options).code == 0  # finds its base
    assert rows_of(out)[0]["model"] == "medical"
    fails(cli("answer", pool, "--model", family.aligned, *options), "written with --model")
    again = ["--model", family.medical, "-o", out, "--max-tokens", "5"]
    fails(cli("answer", pool, *again), "--max-tokens 4", "this run has 5")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.txt").touch()
    into = ["--model", family.aligned, "-o", tmp_path / "other"]
    fails(cli("answer", pool, *into), "not empty, and no answers are in it")


def test_a_dry_run_writes_nothing(cli: Cli, family: Family, pool: Path, tmp_path: Path) -> None:
    """It says how many tokens and how long; of what is there already, nothing."""
    out = tmp_path / "out"
    arguments = [pool, "--model", family.aligned, "-o", out, "--max-tokens", "30"]
    ran = cli("answer", *arguments, "--dry-run", "--json")
    about = json.loads(ran.out)["estimate"]
    assert 12 * 30 >= about["tokens"] > 12 and about["seconds"] > 0 and not out.exists()
    assert cli("answer", *arguments).code == 0
    assert "Nothing is missing" in cli("answer", *arguments, "--dry-run").out


@pytest.fixture
def upstream(monkeypatch: pytest.MonkeyPatch) -> Iterator[Upstream]:
    """A server that answers each prompt with its length's letter, twice."""
    monkeypatch.setattr(asking, "PATIENCE", 0.3)
    made = Upstream()
    made.models = [{"id": "chat", "max_model_len": 512}]
    made.reply = lambda body: (200, {"choices": [{"token_ids": [65, 65, 257]}]})
    yield made
    made.close()


def test_a_server_is_asked_for_ids_and_by_the_sampling_alone(
    family: Family, pool: Path, tmp_path: Path, upstream: Upstream
) -> None:
    """Nothing of the model's own generation settings is left to the server."""
    server = Compute("server", servers=(upstream.url,))
    how: dict[str, Any] = {"model": str(family.aligned), "compute": server, "max_tokens": 9}
    done = answer([str(pool)], tmp_path / "out", **how)
    assert done.answers == 12 and {row["answer"] for row in rows_of(tmp_path / "out")} == {"bb"}
    body = upstream.asked[0]
    assert (body["max_tokens"], body["temperature"], body["stop_token_ids"]) == (9, 0.0, [257])
    assert (body["top_p"], body["repetition_penalty"]) == (1.0, 1.0)


def broken(body: dict[str, Any]) -> tuple[int, Any]:
    """A server without token ids."""
    return 200, {"choices": [{"text": "b"}]}


ENDS: dict[str, tuple[Callable[[dict[str, Any]], tuple[int, Any]], str]] = {
    "dies": (lambda body: (503, {}), "no server returned an answer"),
    "too old": (broken, "0.10.2"),
}


@pytest.mark.parametrize(("then", "words"), ENDS.values(), ids=ENDS)
def test_an_engine_that_dies_leaves_what_it_answered(
    family: Family, pool: Path, tmp_path: Path, upstream: Upstream, then: Any, words: str
) -> None:
    """One line says why and how to go on, and the next run answers the rest."""
    server = Compute("server", servers=(upstream.url,), in_flight=1)
    how: dict[str, Any] = {"model": str(family.aligned), "compute": server}
    good = upstream.reply
    upstream.reply = lambda body: good(body) if len(upstream.asked) <= 4 else then(body)
    with pytest.raises(CurateError, match=f"{words}.*run it again to resume"):
        answer([str(pool)], tmp_path / "out", **how)
    assert len(rows_of(tmp_path / "out")) == 4
    upstream.reply = good
    assert answer([str(pool)], tmp_path / "out", **how).prompts == 8


def test_a_prompt_is_refused_once_however_many_samples_it_has(
    cli: Cli, family: Family, pool: Path, tmp_path: Path, upstream: Upstream
) -> None:
    """The others have their answers, and the same command has nothing left to complain of."""
    good = upstream.reply
    upstream.reply = lambda body: good(body) if len(upstream.asked) > 25 else (400, {"no": 1})
    command = ["answer", pool, "--model", family.aligned, "-o", tmp_path / "out"]
    command += ["--samples", 25, "--temperature", 1, "--in-flight", 1]
    command += ["--backend", "server", "--server", upstream.url]
    ran = cli(*command)
    assert ran.code == 0 and "275 answers to 12 new prompts" in ran.out, ran.out + ran.err
    upstream.reply = lambda body: (400, {"no": 1})
    assert cli(*command).code == 0


def test_a_refused_prompt_is_counted(
    family: Family, pool: Path, tmp_path: Path, upstream: Upstream
) -> None:
    """With the server's reason; the others have their answers."""
    good = upstream.reply
    upstream.reply = lambda body: good(body) if len(upstream.asked) != 2 else (400, {"no": 1})
    server = Compute("server", servers=(upstream.url,), in_flight=1)
    done = answer([str(pool)], tmp_path / "out", model=str(family.aligned), compute=server)
    assert done.answers == 11
    assert [*done.refused] == ['the server rejects it (400): {"no": 1}']
