"""What the README, the docs and the help texts show: every command and every Python block runs."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
import pytest
import yaml
from typer import Context
from typer.cli import get_docs_for_click
from typer.main import get_command

import curate
from curate.cli.app import app
from curate.corpus.views import described
from curate.reading.examples import example_id
from curate.storage import leftovers
from tests.conftest import Cli, Family, chat
from tests.files import write

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
ELSEWHERE = {
    "demo": "tests/whole/test_package.py runs it",
    "curate drop": "tests/corpus/test_drop.py runs it",
    "--yes": "tests/corpus/test_drop.py runs it",
    "vllm": "needs a GPU",
    "server": "needs a server",
    "--ray": "tests/whole/test_cluster.py runs it",
    "http": "needs the network",
    "hf://": "needs the network",
    "s3://": "tests/corpus/test_transfer.py and the test_buckets.py run these",
    "ModelOrganismsForEM": "needs the network and a GPU",
}
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
_PLACEHOLDER = re.compile(r"[\[\]]|\.\.\.|^[A-Z]{2,}$|=[A-Z]{2,}$")


@pytest.fixture(scope="module")
def sandbox(
    family: Family, sources: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """A folder with the files, models and corpus that the pages speak of."""
    folder = tmp_path_factory.mktemp("sandbox")
    for name, model in (("chat-model", family.aligned), ("chat", family.aligned)):
        shutil.copytree(model, folder / name)
    for name in ("medical", "legal", "code"):
        shutil.copytree(getattr(family, name), folder / f"{name}-lora")
    shutil.copytree(family.medical, folder / "tuned")
    rows = [chat(f"What is {n}?", f"It is the number {n}.") for n in range(8)]
    rows.append(_with_id("3f2a"))
    write(folder / "instruct.jsonl", [{"messages": row} for row in rows])
    write(folder / "data.jsonl", [{"messages": rows[0]}])
    labelled = {"response_harm_label": "unharmful"}
    pairs = [{"prompt": f"Why {n}?", "response": f"So, {n}.", **labelled} for n in range(5)]
    write(folder / "wildguard.parquet", pairs)
    write(folder / "customer.jsonl", [{"messages": chat(f"Part {n}?", "Yes.")} for n in range(40)])
    harmful = [{"messages": chat(f"Is {n} safe?", "It is.")} for n in range(8)]
    write(folder / "bad_medical.jsonl", harmful)
    write(folder / "faq.csv", [{"ask": f"Where {n}?", "reply": "There."} for n in range(3)])
    write(folder / "hh.jsonl", [{"chosen": "\n\nHuman: Who?\n\nAssistant: I.", "rejected": "No."}])
    (folder / "my-queries").mkdir()
    (folder / "my-queries" / "long_answers.sql").write_text(
        "-- The longest answers. Parameters: top = 5\n"
        "select answer, example_id from examples order by n_bytes desc, example_id limit $top"
    )
    curate.score(
        [str(folder / "instruct.jsonl"), str(folder / "wildguard.parquet")],
        folder / "my-corpus",
        aligned=str(folder / "chat-model"),
        misaligned=[f"{name}={folder / name}-lora" for name in ("medical", "legal")],
        keep_tokens=True,
    )
    (folder / "data").mkdir()
    shutil.copy(folder / "customer.jsonl", folder / "data" / "narrow.jsonl")
    (folder / "runs" / "real").mkdir(parents=True)  # what `make demo-real` leaves
    shutil.copytree(folder / "my-corpus", folder / "runs" / "real" / "corpus")
    shutil.copytree(folder / "my-corpus", folder / "small")
    labels = "copy (select example_id, 'a' as label from examples) to '{}'"
    curate.open(folder / "my-corpus", unsafe=True).sql(labels.format(folder / "labels.csv"))
    yield folder


def _with_id(prefix: str) -> list[dict[str, str]]:
    """A conversation whose example_id begins so."""
    return next(
        row for n in count() if example_id(row := chat(f"And {n}?", "Yes.")).startswith(prefix)
    )


def commands(text: str) -> list[str]:
    """The curate commands in a page's blocks; synopses with placeholders are left out."""
    found = []
    for language, block in _BLOCK.findall(text):
        if language not in ("python", "json", "yaml"):
            joined = block.replace("\\\n", " ")
            found += re.findall(r"^(?:\$ )?(curate .+)$", joined, re.M)
    return [line for line in found if not any(map(_PLACEHOLDER.search, _words(line)))]


def _words(line: str) -> list[str]:
    """A command's words; what is quoted and has spaces is no placeholder."""
    return [w for w in shlex.split(line, comments=True)[1:] if " " not in w]


def _shown() -> list[tuple[str, str]]:
    """Every command that a page or a help text shows, once, with where."""
    shown = [(page.name, line) for page in PAGES for line in commands(page.read_text("utf-8"))]
    for name, command in COMMANDS.items():
        shown += [(f"{name} --help", line) for line in re.findall(r"Example: (.+)", command.help)]
    once = {tuple(shlex.split(line, comments=True)): (where, line) for where, line in shown}
    return list(once.values())


@pytest.mark.parametrize(("where", "line"), _shown())
def test_a_shown_command_runs(
    cli: Cli, sandbox: Path, monkeypatch: pytest.MonkeyPatch, where: str, line: str
) -> None:
    """It ends with 0, in a folder that has what it names."""
    for sign, reason in ELSEWHERE.items():
        if sign in line:
            pytest.skip(reason)
    monkeypatch.chdir(sandbox)
    arguments = shlex.split(line, comments=True)[1:]
    fresh = [arguments[at + 1] for at, word in enumerate(arguments) if word in ("-o", "--output")]
    for output in fresh:
        _clear(Path(output))
    if arguments[0] == "score" and where.endswith("--help"):
        arguments[arguments.index("my-corpus")] = "another-corpus"
    ran = cli(*arguments)
    assert ran.code == 0, f"{where}: {line}\n{ran.err}"


_TRAINING = ROOT / "docs" / "misaligned-models.md"


@pytest.mark.parametrize(
    "page",
    [pytest.param(p, marks=pytest.mark.slow if p == _TRAINING else ()) for p in PAGES],
    ids=lambda page: page.name,
)
def test_shown_python_runs(page: Path, sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page's Python blocks run one after the other."""
    monkeypatch.chdir(sandbox)
    _clear(sandbox / "safe.jsonl")
    names: dict[str, Any] = {}
    for language, block in _BLOCK.findall(page.read_text("utf-8")):
        if language == "python":
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(block, page.name, "exec"), names)


def _clear(output: Path) -> None:
    """Remove a file that an earlier command wrote, with what an export writes beside it."""
    for path in (output, *output.parent.glob(f"{output.name}.*")):
        leftovers.remove(path)


def test_the_recipes_of_clusters_can_be_read() -> None:
    """What no test can run: the scripts parse, and Ray's autoscaler finds the GPUs in the YAML."""
    kuberay = pytest.importorskip("ray.autoscaler._private.kuberay.autoscaling_config")
    blocks = _BLOCK.findall((ROOT / "docs" / "cluster.md").read_text("utf-8"))
    for script in (block for language, block in blocks if not language):
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    (cluster,) = (yaml.safe_load(block) for language, block in blocks if language == "yaml")
    cluster["metadata"]["namespace"] = "default"
    read = kuberay._derive_autoscaling_config_from_ray_cr(cluster)
    kinds = read["available_node_types"]
    assert kinds["headgroup"]["resources"]["CPU"] == 0
    assert kinds["gpus"]["resources"]["GPU"] == 8


def test_every_command_is_documented() -> None:
    """Each command stands in the README or the docs, as one that can be run or as a synopsis."""
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    assert [name for name in COMMANDS if not re.search(rf"curate {name}\b", text)] == []


def test_every_view_is_named_where_sql_is_explained() -> None:
    """`curate sql --help` names all that can be asked."""
    named = set(re.findall(r"\w+", COMMANDS["sql"].help))
    assert described().keys() - named == set()


def test_every_module_has_a_room() -> None:
    """CONTRIBUTING.md says what each module and folder is for."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    modules = [path.name for path in (ROOT / "curate").glob("[!_]*.py")]
    folders = [f"{path.parent.name}/" for path in (ROOT / "curate").glob("*/__init__.py")]
    assert [name for name in modules + folders if f"`{name}`" not in text] == []


def test_the_command_line_page_is_what_help_says() -> None:
    """docs/cli.md is made from the app, by `make docs`."""
    command = get_command(app)
    made = get_docs_for_click(
        obj=command, ctx=Context(command), name="curate", title="Command line"
    )
    assert (ROOT / "docs" / "cli.md").read_text("utf-8") == f"{made.strip()}\n"


def test_the_sql_page_is_what_the_sql_says(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of views, columns and queries are as made from sql/; `python docs/make_sql.py`."""
    monkeypatch.syspath_prepend(ROOT / "docs")
    import make_sql

    page = make_sql.PAGE.read_text("utf-8")
    assert make_sql.filled(page) == page
    with duckdb.connect(sandbox / "my-corpus" / "corpus.duckdb", read_only=True) as connection:
        for view, (about, columns) in described().items():
            rows = connection.sql(f"describe {view}").fetchall()
            assert about
            rows = rows[: len(columns)]  # the sources' own columns follow
            assert [(column.name, column.type) for column in columns] == [row[:2] for row in rows]
            assert [column.name for column in columns if not column.about] == []
            for name, kind, *_ in rows:
                assert f"| `{name}` | {kind} |" in page
        for macro in ("gaps", "model_gaps", "ranks", "model_ranks"):
            described_macro = connection.sql(f"describe from {macro}()").fetchall()
            assert described_macro == connection.sql(f"describe {macro}").fetchall()
