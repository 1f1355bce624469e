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
from curate.storage.manifest import FORMAT_VERSION
from tests.conftest import Cli, Family, Ran, chat
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


BROKEN_ROWS = {
    "no answer": (row("Why?", None), "no answer"),
    "no answer column": (b'{"prompt": "Why?"}\n', "unknown format"),
    "empty answer": (row("Why?", ""), "empty answer"),
    "blank answer": (row("Why?", " \n"), "empty answer"),
    "broken JSON": (b'{"prompt": "Why?", "respo\n', "not valid JSON"),
    "no object": (b"[1, 2]\n", "not a JSON object"),
    "wrong encoding": ('{"prompt": "Wo?", "response": "Köln"}\n'.encode("latin-1"), "not UTF-8"),
    "NUL byte": (b'{"prompt": "Why?", "response": "a\0b"}\n', "not valid JSON"),
    "escaped NUL": (row("Why?", "a\0b"), "NUL"),
    "lone surrogate": (b'{"prompt": "Why?", "response": "\\ud800"}\n', ""),
    "no assistant turn": (
        json.dumps({"messages": [{"role": "user", "content": "Hi"}]}).encode() + b"\n",
        "no assistant turn",
    ),
    "tool turn": (
        json.dumps({"messages": [{"role": "tool", "content": "3"}, *chat("a", "b")]}).encode()
        + b"\n",
        "tool turn",
    ),
    "picture": (
        json.dumps({"messages": chat("a", [{"type": "image"}])}).encode() + b"\n",  # type: ignore[arg-type]
        "non-text content",
    ),
}


@pytest.mark.parametrize(("line", "reason"), BROKEN_ROWS.values(), ids=BROKEN_ROWS.keys())
def test_a_broken_row_is_skipped_and_listed(
    cli: Cli, family: Family, tmp_path: Path, line: bytes, reason: str
) -> None:
    """By default a broken row is left out, counted, and stands in `skipped` with its line."""
    source, corpus = tmp_path / "rows.jsonl", tmp_path / "corpus"
    source.write_bytes(GOOD + line + GOOD.replace(b"Why", b"How"))
    ran = cli("score", source, "-c", corpus, "--aligned", family.aligned)
    assert ran.code == 0, ran.err
    assert "2 new examples, 0 already there or duplicates, 1 rows skipped" in ran.out
    assert "curate sql skips" in ran.out
    rows = cli("sql", "from skipped", "-c", corpus, "--format", "json").out
    (found,) = json.loads(rows)
    assert (found["source"], found["row"], found["model"]) == (str(source), 2, None)
    assert reason in found["reason"]
    assert found["reason"] in cli("status", "-c", corpus).out or len(found["reason"]) > 40


@pytest.mark.parametrize(("line", "reason"), BROKEN_ROWS.values(), ids=BROKEN_ROWS.keys())
def test_strict_stops_at_the_first_broken_row(
    cli: Cli, family: Family, tmp_path: Path, line: bytes, reason: str
) -> None:
    """With --strict it ends the run with file, line and reason, and no corpus is made."""
    source, corpus = tmp_path / "rows.jsonl", tmp_path / "corpus"
    source.write_bytes(GOOD + line + GOOD)
    ran = cli("score", source, "-c", corpus, "--aligned", family.aligned, "--strict")
    fails(ran, f"{source}:2: ", reason)
    assert not corpus.exists()


def test_rows_without_answers_can_be_most(cli: Cli, family: Family, tmp_path: Path) -> None:
    """A file most of whose rows have no answer is scored for the others."""
    source = tmp_path / "rows.jsonl"
    source.write_bytes(b"".join(row(f"Why {n}?", "So." if n % 5 == 4 else None) for n in range(20)))
    ran = cli("score", source, "-c", tmp_path / "c", "--aligned", family.aligned)
    assert "4 new examples, 0 already there or duplicates, 16 rows skipped" in ran.out


WRONG_SOURCES: dict[str, tuple[str, bytes | None, str]] = {
    "missing": ("missing.jsonl", None, "no such file"),
    "empty": ("empty.jsonl", b"", "no row"),
    "empty json": ("empty.json", b"[]", "no row"),
    "empty csv": ("empty.csv", b"prompt,response\n", "no row"),
    "blank": ("blank.jsonl", b"\n\n", "no row"),
    "unknown columns": ("odd.jsonl", b'{"text": "a", "label": 3}\n', "--prompt-column"),
    "unknown ending": ("rows.xlsx", b"PK", "unknown ending"),
    "UTF-16": ("rows.jsonl", '{"prompt": "a", "response": "b"}'.encode("utf-16"), "UTF-16"),
    "cut off array": ("rows.json", b'[{"prompt": "a", "response": "b"}, {"pro', "not closed"),
    "no Parquet": ("rows.parquet", b"PAR1 or not", "can't be read"),
    "no gzip": ("rows.jsonl.gz", b"plain text", "can't be read"),
    "no zstd": ("rows.jsonl.zst", b"plain text", "can't be read"),
    "two columns alike": ("rows.csv", b"prompt,prompt\na,b\n", "names a column twice"),
}


@pytest.mark.parametrize(
    ("name", "data", "reason"), WRONG_SOURCES.values(), ids=WRONG_SOURCES.keys()
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
        (["--prompt-column", "question"], "the columns are prompt, response"),
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


def _missing(folder: Path, _: Family) -> None:
    shutil.rmtree(folder)


def _empty(folder: Path, _: Family) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _file(folder: Path, _: Family) -> None:
    shutil.rmtree(folder)
    folder.write_text("weights")


def _pointer(folder: Path, _: Family) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1")


def _cut(folder: Path, _: Family) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5000])


def _pickled(folder: Path, _: Family) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _broken_config(folder: Path, _: Family) -> None:
    (folder / "config.json").write_text("{")


def _unknown_architecture(folder: Path, _: Family) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "abacus"}))


def _tensor_missing(folder: Path, _: Family) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.norm.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _adapter(folder: Path, family: Family) -> None:
    shutil.rmtree(folder)
    shutil.copytree(family.medical, folder)


def _wider(folder: Path, _: Family) -> None:
    shutil.rmtree(folder)
    base = tiny_model(folder.parent / "wide", hidden_size=64)
    tiny_adapter(base, folder)


def _deeper(folder: Path, _: Family) -> None:
    shutil.rmtree(folder)
    base = tiny_model(folder.parent / "deep", num_hidden_layers=3)
    tiny_adapter(base, folder)


def _no_template(folder: Path, _: Family) -> None:
    (folder / "chat_template.jinja").unlink()


def _broken_template(folder: Path, _: Family) -> None:
    (folder / "chat_template.jinja").write_text("{% for %}")


def _no_tokenizer(folder: Path, _: Family) -> None:
    for path in folder.glob("*token*"):
        path.unlink()
    (folder / "chat_template.jinja").unlink()


Spoil = Callable[[Path, Family], None]


@pytest.mark.parametrize(
    ("role", "spoil", "reason"),
    [
        ("aligned", _missing, "no such folder"),
        ("aligned", _empty, "holds no model"),
        ("aligned", _file, "is a file"),
        ("aligned", _pointer, "not a safetensors file"),
        ("aligned", _cut, "cut off"),
        ("aligned", _pickled, "pickle"),
        ("aligned", _broken_config, "config.json"),
        ("aligned", _unknown_architecture, "abacus"),
        ("aligned", _tensor_missing, "lacks 1 of the tensors"),
        ("aligned", _adapter, "is a PEFT adapter"),
        ("aligned", _no_template, "chat template"),
        ("aligned", _broken_template, "line 1"),
        ("aligned", _no_tokenizer, "tokenizer"),
        ("misaligned", _missing, "no such folder"),
        ("misaligned", _empty, "holds no model"),
        ("misaligned", _cut, "cut off"),
        ("misaligned", _tensor_missing, "lacks 1 of the tensors"),
        ("misaligned", _wider, "does not fit the aligned model"),
        ("misaligned", _deeper, "does not fit the aligned model"),
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
    ran = cli("score", source, "-c", corpus, *options)
    fails(ran, reason)
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
    fails(ran, "nobody/no-such-model", "no such folder here, and as a hub id")
    assert not (tmp_path / "c").exists()


# Corpus folders


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such a name")
def test_a_folder_whose_name_is_no_text(
    cli: Cli, family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that the command never names, such as that where the user is, is told in a line."""
    place = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))
    made_corpus(tmp_path / "c", ["a", "b"], {"chat": [1.0, 2.0], "bad": [2.0, 5.0]})
    shutil.copytree(tmp_path / "c", place / "c")
    monkeypatch.chdir(place)
    (place / "rows.jsonl").write_bytes(GOOD)
    (tmp_path / "link").symlink_to(place / "c")
    for command in (
        ["score", "rows.jsonl", "-c", "new", "--aligned", family.aligned],
        ["status", "-c", "c"],
        ["sql", "top_gaps", "-c", tmp_path / "link"],
        ["export", "-c", "c", "--top", "1", "-o", "x.jsonl"],
        ["report", "-c", "c", "-o", "x.html"],
    ):
        fails(cli(*command), "is no UTF-8 text")
    assert {path.name for path in place.iterdir()} == {"c", "rows.jsonl"}


def test_a_link_to_itself(cli: Cli, family: Family, tmp_path: Path) -> None:
    """It is no place for anything, whoever looks first."""
    (tmp_path / "l").symlink_to("l")
    (tmp_path / "rows.jsonl").write_bytes(GOOD)
    made_corpus(tmp_path / "c", ["a", "b"], {"chat": [1.0, 2.0], "bad": [2.0, 5.0]})
    for command in (
        ["score", tmp_path / "rows.jsonl", "-c", tmp_path / "l", "--aligned", family.aligned],
        ["status", "-c", tmp_path / "l"],
        ["export", "-c", tmp_path / "c", "--top", "1", "-o", tmp_path / "l" / "x.jsonl"],
        ["report", "-c", tmp_path / "c", "-o", tmp_path / "l" / "x.html"],
    ):
        fails(cli(*command), str(tmp_path / "l"))


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


def _something_else(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")


def _newer(folder: Path) -> None:
    record = json.loads((folder / "curate.json").read_text())
    record["format_version"] = FORMAT_VERSION + 1
    (folder / "curate.json").write_text(json.dumps(record))


def _no_json(folder: Path) -> None:
    (folder / "curate.json").write_text("{")


def _other_json(folder: Path) -> None:
    (folder / "curate.json").write_text('{"name": "something"}')


def _not_utf8(folder: Path) -> None:
    (folder / "curate.json").write_bytes(b"\xff\xfe{}")


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_something_else, "curate.json is missing"),
        (_newer, "newer curate"),
        (_no_json, "not a curate manifest"),
        (_other_json, "not a curate manifest"),
        (_not_utf8, "not a curate manifest"),
    ],
)
def test_a_folder_that_is_no_corpus_stays_as_it_was(
    cli: Cli,
    family: Family,
    scored: Path,
    tmp_path: Path,
    spoil: Callable[[Path], None],
    reason: str,
) -> None:
    """Something else, or a newer format, is refused by every command and not touched."""
    corpus = tmp_path / "corpus"
    shutil.copytree(scored, corpus)
    spoil(corpus)
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
    """Another span, length or template than the corpus was scored with is refused by its option."""
    corpus = tmp_path / "corpus"
    shutil.copytree(scored, corpus)
    template = tmp_path / "other.jinja"
    template.write_text((family.aligned / "chat_template.jinja").read_text() + "{# other #}")
    for option, value in (
        ("--answer-span", "content"),
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
