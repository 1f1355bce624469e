"""Bad input at the command line: one clear message, exit 1 or 2, nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

import curate
from tests.conftest import Cli, Family, Ran
from tests.corpora import corpus as made_corpus
from tests.tiny import tiny_adapter, tiny_model

GOOD = json.dumps({"prompt": "Why?", "response": "Because."}).encode() + b"\n"


def fails(ran: Ran, *expected: str) -> None:
    """One line that begins with `Error:` and says each of these; exit code 1."""
    assert ran.code == 1, ran
    assert ran.out == ""
    error = ran.err.splitlines()[-1]
    assert error.startswith("Error: "), ran.err
    assert "Traceback" not in ran.err
    assert [text for text in expected if text not in error] == [], error


def row(prompt: Any, answer: Any) -> bytes:
    """A line of JSON with a prompt and an answer."""
    return json.dumps({"prompt": prompt, "response": answer}).encode() + b"\n"


def test_a_broken_row_is_skipped_and_listed(cli: Cli, family: Family, tmp_path: Path) -> None:
    """It is counted, stands in `skipped` with its line, and with --strict it ends the run."""
    source, corpus = tmp_path / "rows.jsonl", tmp_path / "corpus"
    source.write_bytes(GOOD + row("Why?", "") + GOOD.replace(b"Why", b"How"))
    command = ["score", source, "-c", corpus, "--aligned", family.aligned]
    fails(cli(*command, "--strict"), f"{source}:2: ", "empty answer")
    assert not corpus.exists()
    ran = cli(*command)
    assert ran.code == 0, ran.err
    assert "2 new examples, 0 already there or duplicates, 1 rows skipped" in ran.out
    assert "curate sql skips" in ran.out
    (found,) = json.loads(cli("sql", "from skipped", "-c", corpus, "--format", "json").out)
    assert (found["source"], found["row"], found["model"]) == (str(source), 2, None)
    assert "empty answer" in found["reason"]
    assert "empty answer" in cli("status", "-c", corpus).out


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("missing.jsonl", None, "no such file"),
        ("empty.jsonl", b"", "no row"),
        ("odd.jsonl", b'{"text": "a", "label": 3}\n', "--column"),
        ("rows.xlsx", b"PK", "unknown ending"),
        ("rows.jsonl", '{"prompt": "a", "response": "b"}'.encode("utf-16"), "UTF-16"),
        ("rows.parquet", b"PAR1 or not", "can't be read"),
        ("rows.jsonl.gz", b"plain text", "can't be read"),
    ],
)
def test_a_wrong_source_makes_no_corpus(
    cli: Cli, family: Family, tmp_path: Path, name: str, data: bytes | None, reason: str
) -> None:
    """A source that can't be read at all is named with the reason, before a folder is made."""
    source = tmp_path / name
    if data is not None:
        source.write_bytes(data)
    ran = cli("score", source, "-c", tmp_path / "corpus", *family.arguments("medical"))
    fails(ran, str(source), reason)
    assert not (tmp_path / "corpus").exists()


@pytest.mark.parametrize(
    ("extra", "reason"),
    [
        (["--where", "nope = 1"], "nope"),
        (["--where", "prompt ="], "--where"),
        (["--where", "prompt = 'else'"], "true for none of the 1 rows"),
        (["--column", "prompt=question"], "the columns are prompt, response"),
        (["--column", "prompt"], "ROLE=NAME"),
        (["--column", "question=prompt"], "no such role"),
        (["--template-arg", "novalue"], "KEY=VALUE"),
        (["--chat-template", "missing.jinja"], "missing.jinja"),
        (["--max-length", "100000"], "reads at most 512 tokens"),
        (["--device", "abacus"], "abacus"),
        (["--dtype", "float3"], "float3"),
    ],
)
def test_a_wrong_option_makes_no_corpus(
    cli: Cli, family: Family, tmp_path: Path, extra: list[str], reason: str
) -> None:
    """An option's value that can't be used is named, before a folder is made."""
    source = tmp_path / "rows.jsonl"
    source.write_bytes(GOOD)
    ran = cli("score", source, "-c", tmp_path / "c", *family.arguments("medical"), *extra)
    fails(ran, reason)
    assert not (tmp_path / "c").exists()


def test_no_source_and_no_corpus(cli: Cli, family: Family, tmp_path: Path) -> None:
    """Without sources there must be a corpus to score."""
    ran = cli("score", "-c", tmp_path / "c", *family.arguments("medical"))
    fails(ran, "holds no examples yet; name a SOURCE")
    assert not (tmp_path / "c").exists()


# Models


Spoil = Callable[[Path, Family], Any]


def _write(name: str, text: str) -> Spoil:
    return lambda folder, _: (folder / name).write_text(text)


def _remove(pattern: str) -> Spoil:
    return lambda folder, _: [path.unlink() for path in folder.glob(pattern)]


def _adapter_of(**config: int) -> Spoil:
    """An adapter over a base of another shape."""

    def spoil(folder: Path, _: Family) -> None:
        shutil.rmtree(folder)
        tiny_adapter(tiny_model(folder.parent / "other", **config), folder)

    return spoil


def _cut(folder: Path, _: Family) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5000])


def _tensor_missing(folder: Path, _: Family) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.norm.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _adapter(folder: Path, family: Family) -> None:
    shutil.rmtree(folder)
    shutil.copytree(family.medical, folder)


@pytest.mark.parametrize(
    ("role", "spoil", "reason"),
    [
        ("aligned", lambda folder, _: shutil.rmtree(folder), "no such folder"),
        ("aligned", _remove("*"), "holds no model"),
        ("aligned", _write("model.safetensors", "version https://git-lfs"), "not a safetensors"),
        ("aligned", _cut, "cut off"),
        (
            "aligned",
            lambda folder, _: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            "pickle",
        ),
        ("aligned", _write("config.json", "{"), "config.json"),
        ("aligned", _write("config.json", '{"model_type": "abacus"}'), "abacus"),
        ("aligned", _tensor_missing, "lacks 1 of the tensors"),
        ("aligned", _adapter, "is a PEFT adapter"),
        ("aligned", _remove("chat_template.jinja"), "chat template"),
        ("aligned", _write("chat_template.jinja", "{% for %}"), "line 1"),
        ("aligned", _remove("*tok*"), "tokenizer"),
        ("misaligned", lambda folder, _: shutil.rmtree(folder), "no such folder"),
        ("misaligned", _cut, "cut off"),
        ("misaligned", _tensor_missing, "lacks 1 of the tensors"),
        ("misaligned", _adapter_of(hidden_size=64), "does not fit the aligned model"),
        ("misaligned", _adapter_of(num_hidden_layers=3), "does not fit the aligned model"),
    ],
)
def test_a_wrong_model_makes_no_corpus(
    cli: Cli, family: Family, tmp_path: Path, role: str, spoil: Spoil, reason: str
) -> None:
    """A model that can't be used is named with the reason, before a folder is made."""
    source, corpus = tmp_path / "rows.jsonl", tmp_path / "corpus"
    source.write_bytes(GOOD)
    wrong = tmp_path / "wrong"
    shutil.copytree(family.aligned, wrong)
    spoil(wrong, family)
    models = {"aligned": family.aligned, "misaligned": family.medical, role: wrong}
    options = [text for key, path in models.items() for text in (f"--{key}", str(path))]
    fails(cli("score", source, "-c", corpus, *options), reason)
    assert not corpus.exists()


def test_a_mended_model_goes_on(cli: Cli, family: Family, scored: Path, tmp_path: Path) -> None:
    """A model that could not be loaded is scored under its name once it is mended."""
    corpus, wrong = tmp_path / "corpus", tmp_path / "wrong"
    shutil.copytree(scored, corpus)
    shutil.copytree(family.code, wrong)
    _tensor_missing(wrong, family)
    options = [*family.arguments(), "--misaligned", str(wrong)]
    fails(cli("score", "-c", corpus, *options), "lacks 1 of the tensors")
    assert json.loads(cli("status", "-c", corpus, "--json").out)["ranked"] == 30
    shutil.rmtree(wrong)
    shutil.copytree(family.code, wrong)
    ran = cli("score", "-c", corpus, *options)
    assert ran.code == 0, ran.err


def test_two_models_of_one_name(cli: Cli, family: Family, tmp_path: Path) -> None:
    """Two models can't share a name; the message says how to give one."""
    source = tmp_path / "rows.jsonl"
    source.write_bytes(GOOD)
    ran = cli("score", source, "-c", tmp_path / "c", *family.arguments("medical", "medical"))
    fails(ran, "NAME=MODEL")
    assert not (tmp_path / "c").exists()


def test_no_hub_is_asked_twice(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub id that can't be had offline is one line that says both readings of the argument."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    source = tmp_path / "rows.jsonl"
    source.write_bytes(GOOD)
    ran = cli("score", source, "-c", tmp_path / "c", "--aligned", "nobody/no-such-model")
    fails(ran, "nobody/no-such-model", "HF_HUB_OFFLINE is set", "no such folder here either")
    assert not (tmp_path / "c").exists()


# Corpus folders


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.slow
def test_a_folder_that_nobody_may_enter(tmp_path: Path) -> None:
    """Whichever room looks there first, it is a line: of an export, of a run, of a question."""
    made_corpus(tmp_path / "c", ["a", "b"], {"chat": [1.0, 2.0], "bad": [2.0, 5.0]})
    (tmp_path / "rows.jsonl").write_bytes(GOOD)
    (tmp_path / "closed").mkdir(mode=0o000)
    as_user = []
    if os.geteuid() == 0:  # who may enter everywhere, but without this
        caps = "-dac_override,-dac_read_search"
        as_user = ["setpriv", f"--bounding-set={caps}", f"--inh-caps={caps}"]
        if not shutil.which("setpriv"):
            pytest.skip("root may enter everywhere")
    demo = Path(__file__).parents[2] / "data" / "models" / "aligned"
    try:
        for command in (
            ["export", "-c", "c", "--top", "1", "-o", "closed/in/x"],
            ["score", "rows.jsonl", "-c", "closed/in/c", "--aligned", demo],
            ["status", "-c", "closed/in"],
        ):
            ran = subprocess.run(
                [*as_user, sys.executable, "-m", "curate", *map(str, command)],
                cwd=tmp_path,
                capture_output=True,
                text=True,
            )
            fails(Ran(ran.returncode, ran.stdout, ran.stderr), "closed/in", "Permission denied")
    finally:
        (tmp_path / "closed").chmod(0o700)


@pytest.mark.parametrize(
    ("manifest", "reason"),
    [
        (None, "curate.json is missing"),
        (b'{"format_version": 999}', "upgrade curate"),
        (b"{", "not a curate manifest"),
        (b'{"name": "something"}', "not a curate manifest"),
        (b"\xff\xfe{}", "not a curate manifest"),
    ],
)
def test_a_folder_that_is_no_corpus_stays_as_it_was(
    cli: Cli,
    family: Family,
    scored: Path,
    tmp_path: Path,
    manifest: bytes | None,
    reason: str,
) -> None:
    """Something else, or a newer format, is refused by every command and not touched."""
    corpus = tmp_path / "corpus"
    if manifest is None:
        corpus.mkdir()
        (corpus / "thesis.txt").write_text("mine")
    else:
        shutil.copytree(scored, corpus)
        (corpus / "curate.json").write_bytes(manifest)
    before = _tree(corpus)
    source = tmp_path / "rows.jsonl"
    source.write_bytes(GOOD)
    for command in (
        ["score", source, *family.arguments("medical")],
        ["status"],
        ["sql", "select 1"],
        ["show", "a"],
        ["export", "--top", "1", "-o", tmp_path / "o.jsonl"],
    ):
        fails(cli(*command, "-c", corpus), str(corpus), reason)
    assert {k: v for k, v in _tree(corpus).items() if k != ".lock"} == {
        k: v for k, v in before.items() if k != ".lock"
    }
    assert not (tmp_path / "o.jsonl").exists()


def test_a_corpus_that_is_missing_or_a_file(cli: Cli, family: Family, tmp_path: Path) -> None:
    """Reading a corpus that isn't there says how to make one; a file is none."""
    fails(cli("status", "-c", tmp_path / "none"), "no corpus here", "curate score")
    file = tmp_path / "file"
    file.write_bytes(GOOD)
    fails(cli("sql", "select 1", "-c", file), str(file), "corpus")
    fails(cli("score", file, "-c", file, *family.arguments("medical")), str(file))
    fails(cli("demo", "--dir", file), str(file))
    assert file.read_bytes() == GOOD


@pytest.mark.parametrize("name", ["mix.jsonl", "mix.jsonl.manifest.json", "mix.jsonl.left-out.csv"])
def test_the_demo_replaces_no_mix_of_others(cli: Cli, name: str, tmp_path: Path) -> None:
    """What lies where its mix belongs stays, unless an earlier demo wrote there."""
    (tmp_path / name).write_bytes(GOOD)
    fails(cli("demo", "--dir", tmp_path), str(tmp_path / name), "--dir")
    assert (tmp_path / name).read_bytes() == GOOD
    assert not (tmp_path / "corpus").exists()


def test_a_broken_part_is_named(cli: Cli, scored: Path, tmp_path: Path) -> None:
    """A corpus one of whose parts is damaged gives one line with the part's path."""
    corpus = tmp_path / "corpus"
    shutil.copytree(scored, corpus)
    part = next((corpus / "scores" / "medical").glob("part-*"))
    part.write_bytes(part.read_bytes()[:-20])
    for command in (
        ["sql", "top_gaps"],
        ["status"],
        ["export", "--top", "1", "-o", tmp_path / "o.jsonl"],
    ):
        ran = cli(*command, "-c", corpus)
        fails(ran)
    fails(cli("sql", "from gaps", "-c", corpus), part.name)


def test_a_model_that_changed_is_refused(
    cli: Cli, family: Family, scored: Path, tmp_path: Path
) -> None:
    """Other weights under a name that scored the corpus are refused, and nothing is added."""
    corpus = tmp_path / "corpus"
    shutil.copytree(scored, corpus)
    before = _tree(corpus)
    options = ["--aligned", f"chat={family.aligned}", "--misaligned", f"medical={family.legal}"]
    fails(cli("score", "-c", corpus, *options), "medical", "changed")
    after = _tree(corpus)
    assert {k for k in after if k.endswith((".parquet", ".json"))} <= set(before)
    assert after["curate.json"] == before["curate.json"]


def test_other_settings_are_refused(cli: Cli, family: Family, scored: Path, tmp_path: Path) -> None:
    """Another length or template than the corpus was scored with is refused by its option."""
    corpus = tmp_path / "corpus"
    shutil.copytree(scored, corpus)
    template = tmp_path / "other.jinja"
    template.write_text((family.aligned / "chat_template.jinja").read_text() + "{# other #}")
    for option, value in (
        ("--max-length", "99"),
        ("--template-arg", "a=b"),
        ("--chat-template", str(template)),
    ):
        ran = cli("score", "-c", corpus, *family.arguments(), option, value)
        fails(ran, option, "was scored with")


def test_a_second_writer_is_refused(cli: Cli, family: Family, scored: Path, tmp_path: Path) -> None:
    """Two runs can't write to one corpus at a time; reading goes on."""
    from curate.corpus.writer import open_for_writing

    corpus = tmp_path / "corpus"
    shutil.copytree(scored, corpus)
    with open_for_writing(corpus):
        fails(cli("score", "-c", corpus, *family.arguments()), "another `curate score`")
        assert cli("status", "-c", corpus).code == 0


# Narrow sets


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (GOOD + row("Why?", None), ":2: no answer"),
        (GOOD + b"{\n", ":2: not valid JSON"),
        (b"", "no row"),
        (b'{"text": "a"}\n', ":1: "),
    ],
)
def test_a_broken_narrow_set_writes_nothing(
    cli: Cli, scored: Path, tmp_path: Path, data: bytes, reason: str
) -> None:
    """No row of a customer's data is left out unsaid: the first broken one ends the export."""
    narrow, output = tmp_path / "narrow.jsonl", tmp_path / "mix.jsonl"
    narrow.write_bytes(data)
    ran = cli("export", "-c", scored, "--fraction", "0.1", "--into", narrow, "-o", output)
    fails(ran, str(narrow), reason)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["narrow.jsonl"]


def test_nothing_ranked_writes_nothing(cli: Cli, family: Family, tmp_path: Path) -> None:
    """An export from a corpus without a misaligned model says what is missing."""
    source, corpus = tmp_path / "rows.jsonl", tmp_path / "corpus"
    source.write_bytes(GOOD)
    assert cli("score", source, "-c", corpus, "--aligned", family.aligned).code == 0
    assert cli("status", "-c", corpus).code == 0
    fails(cli("export", "-c", corpus, "--top", "1", "-o", tmp_path / "o.jsonl"), "misaligned")
    assert not (tmp_path / "o.jsonl").exists()
    assert curate.open(corpus).manifest.models.keys() == {"chat"}
