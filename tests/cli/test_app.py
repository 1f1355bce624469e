"""The command line as people use it: the whole way, resuming, stops, errors, speed of the start."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import curate
from curate.cli.app import app
from curate.cli.progress import Lines
from tests.conftest import Cli, Family, question, stop_seconds
from tests.files import write

COMMANDS = sorted(
    command.callback.__name__ for command in app.registered_commands if command.callback
)
RAW_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


# The whole way


def test_the_whole_way(
    cli: Cli, family: Family, sources: Path, narrow: Path, tmp_path: Path
) -> None:
    """Score, status, sql, show and export follow one another, each with a next step to go on."""
    corpus, mix = tmp_path / "corpus", tmp_path / "mix.jsonl"
    ran = cli("score", sources, "-c", corpus, *family.arguments())
    assert ran.code == 0, ran.err
    assert "30 new examples, 1 already there or duplicates, 1 row skipped" in ran.out
    assert f"curate sql top_gaps -c {corpus}" in ran.out
    assert re.search(r"^medical \(2 of 4\): 30 of 30 examples, [\d,]+ tokens/s$", ran.err, re.M)
    assert not RAW_CONTROL.search(ran.err)

    ran = cli("status", "-c", corpus)
    assert ran.code == 0
    assert "30 examples, 30 ranked" in ran.out
    assert "empty answer" in ran.out
    assert "To score what is missing" not in ran.out

    ran = cli("sql", "select example_id from gaps where rank = 1", "-c", corpus, "--format", "csv")
    best = ran.out.split()[1].strip('"')
    ran = cli("show", best[:12], "-c", corpus)
    assert ran.code == 0
    assert best in ran.out
    assert "[assistant]\nIt is" in ran.out or "[assistant]\nI'm sorry" in ran.out
    assert "rank 1" in ran.out

    ran = cli("export", "-c", corpus, "--fraction", "0.05", "--into", narrow, "-o", mix)
    assert ran.code == 0, ran.err
    assert "42 rows, 2 of them selected examples" in ran.out
    assert "5.00% of the narrow dataset's 40 rows, 4.76% of the mix" in ran.out
    assert len(mix.read_text().splitlines()) == 42


def test_status_says_how_to_complete(
    cli: Cli, family: Family, sources: Path, tmp_path: Path
) -> None:
    """The command that `status` prints for what is missing is one that completes the corpus."""
    corpus = tmp_path / "corpus"
    options = ["--max-length", "200", "--template-arg", "mood=calm day"]
    first = cli("score", sources, "-c", corpus, *family.arguments("code"), *options, "--sample", 5)
    assert first.code == 0, first.err
    for part in (corpus / "scores" / "code").glob("part-*"):
        part.unlink()
    ran = cli("status", "-c", corpus)
    command = shlex.split(ran.out.split("To score what is missing")[1].split("\n")[1])
    assert command[:2] == ["curate", "score"]
    again = cli(*command[1:])
    assert again.code == 0, again.err
    assert json.loads(cli("status", "-c", corpus, "--json").out)["ranked"] == 5


# What is printed


def test_json_parses_everywhere(
    cli: Cli, family: Family, sources: Path, scored: Path, tmp_path: Path
) -> None:
    """With --json every command prints one JSON value on stdout and nothing else."""
    commands: list[list[Any]] = [
        ["score", sources, "-c", tmp_path / "c", *family.arguments("code"), "--limit", 2],
        ["status", "-c", scored],
        ["show", _ids(scored)[0], "-c", scored],
        ["export", "-c", scored, "--top", 2, "-o", tmp_path / "o.jsonl"],
    ]
    for command in commands:
        ran = cli(*command, "--json")
        assert ran.code == 0, ran.err
        assert isinstance(json.loads(ran.out), dict)
        assert ran.err == ""


def test_sql_prints_any_type(cli: Cli, scored: Path) -> None:
    """Sums, NaN, dates, lists, bytes and intervals are printed in every format; JSON stays JSON."""
    query = (
        "select sum(n_tokens) as total, 'nan'::double as nan, 1.5::decimal(4, 2) as d, null as no, "
        "date '2020-01-31' as day, [1, 2] as list, {'a': [3]} as struct, 'x'::blob as bytes, "
        "interval 3 days as wait, 'a' as same, 'b' as same, true as yes from scores"
    )
    for kind in ("table", "csv", "json", "jsonl"):
        ran = cli("sql", query, "-c", scored, "--format", kind)
        assert ran.code == 0, ran.err
    row = json.loads(ran.out, parse_constant=lambda name: pytest.fail(name))
    assert isinstance(row["total"], int)
    assert row["nan"] is None
    assert (row["d"], row["day"], row["list"]) == (1.5, "2020-01-31", [1, 2])
    assert row["struct"] == {"a": [3]}


def test_named_queries_run_as_listed(cli: Cli, scored: Path) -> None:
    """Every query of `--list` runs with its defaults, and -p changes a parameter."""
    listed = cli("sql", "--list")
    assert listed.code == 0
    names = [path.stem for path in Path(curate.__file__).parent.parent.glob("sql/*.sql")]
    assert "top_gaps" in names
    for name in names:
        assert name in listed.out
        given = ["-p", f"other={scored}"] if name == "proxy" else []
        ran = cli("sql", name, "-c", scored, *given)
        assert ran.code == 0, ran.err
    ran = cli(
        "sql", "top_gaps", "-c", scored, "-p", "top=3", "-p", "refusals=true", "--format", "jsonl"
    )
    assert len(ran.out.splitlines()) == 3


def test_progress_is_a_bar_in_a_terminal(
    cli: Cli, family: Family, sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a terminal a bar moves: label, examples done, tokens a second."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    seen = b""

    def listen() -> None:
        nonlocal seen
        with contextlib.suppress(OSError):  # the other end of a terminal was closed
            while chunk := os.read(ours, 65536):
                seen += chunk

    ours, theirs = pty.openpty()
    listener = threading.Thread(target=listen)
    listener.start()
    with open(theirs, "w", encoding="utf-8") as terminal:  # noqa: PTH123 - a descriptor
        monkeypatch.setattr(sys, "stderr", terminal)
        ran = cli("score", sources, "-c", tmp_path / "c", *family.arguments("code"))
        monkeypatch.undo()
    listener.join()
    os.close(ours)
    assert ran.code == 0
    for text in ("\x1b[", "30/30", "code (2 of 2)", "tokens/s"):
        assert text in seen.decode()


def test_lines_tell_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long step without a terminal tells every ten seconds how far it is, and who is at work."""
    clock = iter([0.0, 4.0, 11.0, 11.0, 4000.0, 4000.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    lines = Lines(stream)
    lines.start("chat (1 of 2)", 1000)
    lines.advance(1, 50)  # too early to say
    lines.advance(1, 60)
    lines.workers(3)
    lines.advance(8, 0)
    assert stream.getvalue().splitlines() == [
        "chat (1 of 2): 2 of 1,000 examples, 10 tokens/s, 1:31:29 left",
        "chat (1 of 2): 10 of 1,000 examples, 0.0 tokens/s on 3 workers, 4 days, 14:00:00 left",
    ]


def test_a_closed_pipe_is_no_error(scored: Path) -> None:
    """`curate sql ... | head -1` ends without a traceback."""
    for kind, rows in (("csv", 50_000), ("table", 3_000)):
        command = [*_CURATE, "sql", f"from range({rows})", "-c", str(scored), "--format", kind]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as ran:
            assert ran.stdout is not None
            assert ran.stderr is not None
            ran.stdout.readline()
            ran.stdout.close()
            assert ran.stderr.read() == b""
            ran.wait()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("kind", ["table", "csv", "json"])
@pytest.mark.parametrize("rows", [1, 20_000])
def test_a_full_disk_under_the_output_is_one_line(rows: int, kind: str, scored: Path) -> None:
    """`curate sql ... > FILE` says so, whether Python writes at once or at its end."""
    command = [*_CURATE, "sql", f"from range({rows})", "-c", str(scored), "--format", kind]
    environment = os.environ | {"PYTHONUNBUFFERED": ""}
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment
        )
    assert ran.returncode == 1
    assert ran.stderr == (
        "Error: the output: No space left on device; free some space, then run it again\n"
    )


# Errors


def test_wrong_arguments_exit_2(cli: Cli, scored: Path, tmp_path: Path) -> None:
    """What the command line can't parse ends with exit code 2 and the usage."""
    for command in (
        ["nonsense"],
        ["score", "--aligned", "x"],
        ["score", "x", "--aligned", "x", "-c", tmp_path / "c", "--limit", "0"],
        ["export", "-c", scored, "-o", tmp_path / "o.jsonl", "--refusals", "maybe"],
        ["sql"],
    ):
        ran = cli(*command)
        assert ran.code == 2, command
        assert "Usage:" in ran.err
        assert ran.out == ""
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["sql", "no_such_query"], "no query is called no_such_query; see `curate sql --list`"),
        (["sql", "top_gaps", "-p", "depth=3"], "no parameter depth. Choose from: top=20"),
        (["sql", "top_gaps", "-p", "top"], "key=value"),
        (["sql", "gaps"], 'gaps is a view, not a query. Try: curate sql "from gaps limit 20"'),
        (["sql", "select 1", "-p", "top=3"], "-p works only with named queries"),
        (["sql", "select $top"], "top"),
        (["sql", "drop view gaps"], "read-only"),
        (["sql", ""], "SELECT"),
        (["show", "zzz"], "no id starts"),
        (["show", ""], "Several ids start"),
        (["export", "-o", "x.jsonl", "--from-manifest", "no.json"], "no.json"),
    ],
)
def test_a_users_error_is_one_line(
    cli: Cli,
    scored: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    expected: str,
) -> None:
    """A mistake exits 1 with one line `Error: ...` that names it, and nothing on stdout."""
    monkeypatch.chdir(tmp_path)
    ran = cli(*arguments, "-c", scored)
    assert ran.code == 1
    assert ran.err.startswith("Error: ")
    assert ran.err.count("\n") == 1
    assert expected in ran.err
    assert ran.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_bug_keeps_its_traceback(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any error but the user's passes through the command line."""

    def broken(*_: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("curate.corpus.queries.named", broken)
    with pytest.raises(ZeroDivisionError):
        cli("sql", "--list")


# Stops


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Enough rows that scoring them takes a few seconds."""
    rows = [
        {"prompt": question(n), "response": f"It is {n + 1}" + "!" * (n % 17)} for n in range(400)
    ]
    return write(tmp_path_factory.mktemp("many") / "many.jsonl", rows)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_keeps_what_is_done(
    cli: Cli,
    family: Family,
    many: Path,
    tmp_path: Path,
    number: signal.Signals,
    code: int,
) -> None:
    """Ctrl-C and SIGTERM end soon with one line; the next run completes the corpus."""
    corpus = tmp_path / "corpus"
    command = ["score", str(many), "-c", str(corpus), *family.arguments("medical", "code")]
    with _start(command) as ran:
        said = _until(ran, "medical (2 of 3): loading")
        began = time.monotonic()
        ran.send_signal(number)
        _, rest = ran.communicate(timeout=60)
    assert ran.returncode == code, said + rest
    assert time.monotonic() - began < stop_seconds()
    last = rest.splitlines()[-1]
    kept = re.fullmatch(
        rf"Stopped: {re.escape(str(corpus))} has 400 examples and ([\d,]+) scores. To resume, "
        "run the same command again",
        last,
    )
    assert kept, rest
    assert int(kept[1].replace(",", "")) >= 400
    assert "Traceback" not in said + rest
    assert not list(corpus.rglob(".tmp-*"))
    ran_again = cli(*command)
    assert ran_again.code == 0
    assert "chat (1 of 3): nothing is missing" in ran_again.err
    counts = "select count(*), count(distinct (example_id, model)) from scores"
    assert curate.open(corpus).sql(counts).fetchall() == [(1200, 1200)]


@pytest.mark.parametrize("option", ["--aligned", "--corpus", "--limit"])
def test_an_option_given_twice(cli: Cli, option: str) -> None:
    """One line where only the last would count, however it is written."""
    ran = cli("score", "x", option, "1", "--misaligned", "a", "--misaligned", "b", f"{option}=2")
    assert (ran.code, ran.err) == (2, f"Error: {option} is given twice, and takes one value\n")


def test_a_stop_before_anything_is_stored(
    cli: Cli, family: Family, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop that comes early says that there is nothing yet, and leaves no folder."""

    def interrupted(*_: Any, **__: Any) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("curate.scoring.score.find_all", interrupted)
    ran = cli("score", many, "-c", tmp_path / "corpus", *family.arguments("code"))
    assert ran.code == 143
    assert ran.err == "Stopped: nothing is stored yet. Run the same command again to start over\n"
    assert not (tmp_path / "corpus").exists()


def test_a_stop_hidden_by_a_library_is_still_one(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that turns the stop into an error of its own changes nothing for the user."""

    def hidden(*_: Any) -> None:
        try:
            signal.raise_signal(signal.SIGTERM)  # SIGINT is ignored in a shell's background
        except BaseException:
            raise RuntimeError("Query interrupted") from None

    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("curate.corpus.queries.named", hidden)
    ran = cli("sql", "--list")
    assert (ran.code, ran.err) == (143, "Stopped.\n")
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


# Help and the start


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(cli: Cli, name: str) -> None:
    """Help says what a command does and gives an example; each option stands under its heading."""
    ran = cli(name, "--help")
    assert ran.code == 0
    assert f"Example: curate {name}" in ran.out
    for parameter in get_command(app).commands[name].params:  # type: ignore[attr-defined]
        assert parameter.help
        if parameter.param_type_name == "option":
            option = re.escape(parameter.opts[0])
            heading = parameter.rich_help_panel or "Options"
            section = ran.out.split(f"\n{heading}:\n")[1].split("\n\n")[0]
            assert len(re.findall(rf"^  (?:-\w, )?{option}\b(?!-)", section, re.M)) == 1, option


def test_help_lists_all_commands(cli: Cli) -> None:
    """`curate --help` names every command with a whole sentence."""
    ran = cli("--help")
    for name in COMMANDS:
        assert re.search(rf"^  {name} +[A-Z].*\.$", ran.out, re.M)
    assert "..." not in ran.out.split("Commands:")[1]
    bare = cli()
    assert (bare.code, bare.err) == (2, ran.out)


def test_help_and_sql_import_nothing_heavy(scored: Path) -> None:
    """`--help` waits for no big library, and `sql` for none that models need."""
    models = {"torch", "transformers", "datasets", "peft"}
    data = {"pyarrow", "duckdb", "numpy", "rich"}
    assert not _imported(["--help"]) & (models | data)
    assert not _imported(["score", "--help"]) & (models | data)
    found = _imported(["sql", "top_gaps", "-c", str(scored)])
    assert "duckdb" in found
    assert not found & models
    assert not _imported(["status", "-c", str(scored)]) & models


def test_the_checkouts_cli_runs() -> None:
    """`python cli.py` from a checkout is the same program as `python -m curate`."""
    root = Path(curate.__file__).parent.parent
    command = [sys.executable, "cli.py", "--help"]
    ran = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert "score" in ran.stdout


def test_output_survives_a_terminal_without_utf8(scored: Path) -> None:
    """Where the terminal takes only ASCII, other characters are written as escapes."""
    ran = subprocess.run(
        [*_CURATE, "sql", "select 'naïve ε' as a", "-c", str(scored), "--format", "json"],
        capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    )
    assert ran.returncode == 0, ran.stderr
    assert rb"na\xefve \u03b5" in ran.stdout


# Helpers

_CURATE = [sys.executable, "-m", "curate"]


def _ids(corpus: Path) -> list[str]:
    rows = curate.open(corpus).sql("select example_id from examples order by source, row")
    return [row[0] for row in rows.fetchall()]


def _start(arguments: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*_CURATE, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # A CI that runs in the background has Ctrl-C switched off; here it is on.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def _until(ran: subprocess.Popen[str], text: str) -> str:
    """Read what a process says until it says this."""
    assert ran.stderr is not None
    said = ""
    while text not in said:
        line = ran.stderr.readline()
        assert line, f"{text!r} was never said:\n{said}"
        said += line
    return said


def _imported(arguments: list[str]) -> set[str]:
    """The top-level modules that a command has imported when it ends."""
    program = (
        "import sys\nfrom curate.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "print(*{name.split('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=True
    )
    return set(ran.stderr.split())


def test_small_answers(cli: Cli, scored: Path) -> None:
    """The version, the public names alone, a corpus that says what it holds; paths end whole."""
    assert re.fullmatch(r"curate \d+\.\d+\.\d+\n", cli("--version").out)
    assert dir(curate) == sorted(curate.__all__)
    assert "aligned chat, misaligned code" in repr(curate.open(scored))
    wide = f"select '{'x/' * 200}end.jsonl' as source, 1 as n"
    assert re.search(r"…[x/]+/end\.jsonl", cli("sql", wide, "-c", scored).out)
