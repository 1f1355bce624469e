"""Nobody gets in: by SQL, by a template, a corpus, a name, or what is printed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.chat.encode import Encoded, encode
from curate.chat.templates import template_of
from curate.chat.tokens import load_tokenizer
from curate.cli.tables import clean, json_text
from curate.corpus.corpus import Corpus
from curate.errors import CurateError
from curate.models.references import parse
from curate.reading.examples import read
from curate.storage import parts
from curate.system.sql import _SIDE_EFFECTS
from tests.conftest import Cli, Family, chat
from tests.corpora import corpus as made_corpus
from tests.files import contents, write

SECRET = "it-is-a-secret-7f3a"
ROW = {"prompt": "q", "response": "a"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus `c`, and files beside it that no query may read."""
    place = tmp_path_factory.mktemp("place")
    made_corpus(place / "c", ["a", "b"], {"chat": [1.0, 2.0], "bad": [2.0, 5.0]})
    for name in ("secret.txt", "secret.csv", "rows.jsonl"):
        (place / name).write_text(f'{{"prompt": "q", "response": "{SECRET}"}}\n')
    pq.write_table(pa.table({"x": [SECRET]}), place / "secret.parquet")
    (place / "c" / "link.csv").symlink_to(place / "secret.csv")
    return place


@pytest.fixture
def place(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory is that folder, and nothing in it may change."""
    monkeypatch.chdir(shared)
    monkeypatch.setenv("CURATE_TEST_SECRET", SECRET)
    before = contents(shared)
    yield shared
    assert contents(shared) == before


WAYS_OUT = [
    # reading what is not the corpus
    "select content from read_text('{p}/secret.txt')",
    "select content from read_text('c/../secret.txt')",
    "from read_text('{p}/c/curate.json')",
    "from read_csv('{p}/c/link.csv')",
    "from read_parquet('{part}')",
    "from glob('{p}/*')",
    "from 'secret.csv'",
    "from query_table('{p}/secret.csv')",
    "from histogram('{p}/secret.csv', prompt)",
    "select (select content from read_text('{p}/secret.txt'))",
    "summarize from read_csv('{p}/secret.csv')",
    # the network, extensions, secrets
    "from 'https://localhost:1/x.parquet'",
    "from duckdb_secrets(redact := false)",
    "create persistent secret (type s3, key_id 'a', secret 'b')",
    "install httpfs",
    "load '{p}/evil.duckdb_extension'",
    "select getenv('CURATE_TEST_SECRET')",
    # writing
    "copy (select 1) to '{p}/out.csv'",
    "copy (pivot gaps on source using count(*)) to '{part}'",
    "with x as (copy (select 1) to '{p}/c/out.csv') from x",
    "from (with x as (copy (select 1) to '{p}/c/out.csv') from x)",
    "select exists(with x as (copy (select 1) to '{part}') from x)",
    "with x as (delete from models returning *) from x",
    "select 1 union all (with x as (delete from models returning *) select 2 from x)",
    "attach '{p}/out.duckdb'",
    "create or replace view gaps as select 1",
    "truncate models",
    "select list_transform([1], lambda x: write_log('a'))",
    # of a PIVOT, which DuckDB runs in two steps
    "with x as (copy (select 1) to '{part}') pivot gaps on source using count(*)",
    "pivot gaps on source using count(getenv('CURATE_TEST_SECRET'))",
    "pivot (from read_text('{p}/secret.txt')) on content",
    "pivot gaps on source using count(*); drop view gaps",
    # SQL in a text, which is another connection's
    "from query('select 1')",
    "{execute}('with x as (copy (select 1) to ''{part}'' (use_tmp_file false)) from x'))",
    "select exists({execute}('with x as (copy (select 1) to ''{p}/c/o.csv'') from x')))",
    "from models, lateral ({execute}('select 1')))",
    "from (pivot ({execute}('select 1'))) on role in ('a') using count(*))",
    "from System.Main.\"JSON_Execute_Serialized_SQL\"(json_serialize_sql('select 1'))",
    "call json_execute_serialized_sql(json_serialize_sql('select 1'))",
    # settings, time
    "set allowed_directories = ['/']",
    "reset lock_configuration",
    "from enable_logging(storage := 'file', storage_path := '{p}/c')",
    "select sleep_ms(1)",
    # more than one, or none
    "select 1; drop view gaps; select 2",
    "explain analyze copy (select 1) to '{p}/out.csv'",
    "begin",
]


def filled(way: str, place: Path) -> str:
    """A way out with the paths of this place."""
    part = parts.list_parts(place / "c" / "scores" / "bad")[0]
    way = way.replace("{execute}", "from json_execute_serialized_sql(json_serialize_sql")
    return way.replace("{part}", str(part)).replace("{p}", str(place))


@pytest.fixture(scope="module")
def opened(shared: Path) -> Corpus:
    """The corpus, opened once: no query may prepare the next."""
    return Corpus(shared / "c")


@pytest.mark.parametrize("way", WAYS_OUT)
def test_sql_has_no_way_out(way: str, opened: Corpus, place: Path) -> None:
    """No query reads what is not the corpus, writes anywhere, changes a setting or adds code."""
    with pytest.raises((CurateError, duckdb.Error)) as caught:
        opened.sql(filled(way, place)).fetchall()
    assert SECRET not in str(caught.value)
    assert opened.sql("select count(gap), max(rank) from gaps, models").fetchall() == [(4, 2)]


def test_the_connection_itself_opens_the_parts_alone(opened: Corpus, place: Path) -> None:
    """Past the check of the syntax tree, no file but a part could be written or read."""
    for way in (
        "copy (select 1) to '{p}/c/curate.json' (format csv, use_tmp_file false)",
        "copy (select 1) to '{p}/c/examples/part-000009.parquet'",
        "copy (select 1) to '{part}'",
        "{execute}('with x as (copy (select 1) to ''{p}/c/curate.json'') from x'))",
        "attach '{p}/c/new.duckdb'",
        "from read_text('{p}/c/curate.json')",
        "from glob('{p}/c/*')",
    ):
        with pytest.raises(duckdb.Error, match="disabled by configuration"):
            opened.connection.execute(filled(way, place)).fetchall()
    settings = dict(opened.sql("select name, value from duckdb_settings()").fetchall())
    assert settings["lock_configuration"] == "true"
    for name in (
        *("enable_external_access", "autoinstall_known_extensions", "autoload_known_extensions"),
        *("allow_persistent_secrets", "python_enable_replacements"),
    ):
        assert settings[name] == "false", name


def test_every_function_with_side_effects_is_known() -> None:
    """Those that this DuckDB calls volatile are refused, but for these, which only give a value."""
    harmless = {
        *("current_connection_id", "current_query", "current_query_id", "current_transaction_id"),
        *("error", "gen_random_uuid", "random", "stats", "uuid", "uuidv4", "uuidv7", "vector_type"),
    }
    functions = "select distinct function_name from duckdb_functions() where stability = 'VOLATILE'"
    volatile = {name for (name,) in duckdb.connect().execute(functions).fetchall()}
    assert volatile - harmless == _SIDE_EFFECTS - {"getenv", "pg_sleep"}


def test_a_query_too_deep_to_check(opened: Corpus) -> None:
    """It is refused in a line, by us or by DuckDB, and never passes unchecked."""
    for query in ("select " + "+".join(["1"] * 900), "select " + "(" * 9000 + "1" + ")" * 9000):
        with pytest.raises(CurateError, match=r"deep|depth|overflow"):
            opened.sql(query)


@pytest.mark.parametrize(
    "query",
    [
        "with a as (select 1 as x), b as materialized (from a) select * from b union select 2",
        "with recursive t(n) as (select 1 union all select n + 1 from t where n < 3) from t",
        "select prompt from examples where answer like '%delete%' or answer ilike 'copy %'",
        "pivot gaps on source using count(*)",
        "pivot gaps on source, is_refusal using avg(gap), count(*) group by unit order by unit",
        'with x as (from gaps) pivot (from x) on "source" using sum(gap);',
        "from (pivot models on role in ('aligned', 'misaligned') using count(*))",
        "unpivot (select 1 as a, 2 as b) on a, b",
        "summarize gaps",
        "from (describe gaps)",
        "from histogram('gaps', gap)",
        "from histogram('scores', nll, bin_count := 3)",
        "from query_table('models')",
        "select *, lag(gap) over w as before from gaps window w as (order by gap)",
        "from gaps qualify row_number() over (partition by source order by gap desc) = 1",
        "select list_transform([1, 2], lambda x: x + 1), [x * 2 for x in [1, 2]]",
        "from gaps asof join scores on gaps.gap >= scores.nll using sample 50%",
        "select 1 -- copy (select 1) to 'x'",
        "from gaps(epsilon := 0.5), range(3) r(a), unnest([1]) u(b), generate_series(1, 2) g(c)",
        "from model_gaps(), ranks() r, model_ranks() m",
        "from json_each('{}') union all by name from json_tree('{}')",
        "select random(), uuid(), current_setting('threads') from duckdb_settings()",
        "select json_serialize_sql('from query(''select 1'')')",
    ],
)
def test_ordinary_sql_is_answered(query: str, opened: Corpus) -> None:
    """What only reads passes, whatever words are in it."""
    opened.sql(query).fetchall()


WHERES_OUT = [
    "exists(select * from read_text('{p}/secret.txt'))",
    "exists(from '{p}/secret.parquet')",
    "exists({execute}('with x as (copy (select 1) to ''{p}/c/curate.json'') from x')))",
    "exists(with x as (delete from models returning *) from x)",
    "write_log('a') is null",
    'exists(from "table")',  # a variable where it is asked
    "true; copy (select 1) to '{p}/out.csv'",
    "true) from examples; drop view gaps; --",
    "true), false) as passes, true as wanted from gaps()), other as (select coalesce((true",
    "true) or (1 = 1",
    "true union select 1",
    "true, false",
]


@pytest.mark.parametrize("way", WHERES_OUT)
def test_where_only_filters(way: str, cli: Cli, place: Path, tmp_path: Path) -> None:
    """A `--where`, of an export or of a source, is one condition, and reads no other thing."""
    where = filled(way, place)
    with pytest.raises(CurateError):
        list(read([str(place / "rows.jsonl")], where=where))
    output = tmp_path / "o.jsonl"
    ran = cli("export", "-c", place / "c", "--top", "1", "-o", output, "--where", where)
    assert (ran.code, SECRET in ran.err, output.exists()) == (1, False, False), ran


# Templates


def encoded(family: Family, messages: list[dict[str, str]], more: str = "") -> Encoded | str:
    """A conversation by the model's own template, with more of a template after it."""
    tokenizer = load_tokenizer(family.aligned)
    text = (family.aligned / "chat_template.jinja").read_text() + more
    return encode(tokenizer, template_of(tokenizer, override=text), [messages])[0]


@pytest.mark.parametrize(
    "attack",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.popen('touch {p}').read() }}",
        "{{ self.__init__.__globals__.__builtins__.open('{p}', 'w') }}",
        "{{ raise_exception.__globals__['sys'].modules['os'].system('touch {p}') }}",
        "{{ (strftime_now|attr('__globals__'))['os'] }}",
        "{{ (messages|tojson).format.__func__.__globals__ }}",
        "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
        "{{ ('{0.__class__}' ~ '')|format(messages) }}{{ ''['__class__']['__mro__'] }}",
        "{% include '/etc/passwd' %}",
        "{% import '/etc/passwd' as x %}",
        "{{ messages.pop() }}",
        "{{ messages[0].update({'content': 'other'}) }}",
        "{% for i in range(10 * 100000000) %}x{% endfor %}",
    ],
)
def test_an_attack_template_gets_nowhere(attack: str, family: Family, tmp_path: Path) -> None:
    """It reaches no Python, no file and no later conversation: each is refused with a reason."""
    mark, messages = tmp_path / "touched", chat("q", "a")
    found = encoded(family, messages, attack.replace("{p}", str(mark)))
    assert isinstance(found, str), "nothing of this may be scored"
    assert "\n" not in found
    assert not mark.exists()
    assert messages == chat("q", "a")


def test_text_is_no_template(family: Family) -> None:
    """Jinja in a message stays text: it is never run."""
    found = encoded(family, chat("{{ 7 * 7 }}{% for x in y %}", "{{ raise_exception('x') }}"))
    assert isinstance(found, Encoded)
    text = load_tokenizer(family.aligned).decode(found.ids)
    assert "{{ 7 * 7 }}" in text
    assert "{{ raise_exception('x') }}" in text


# Names


@pytest.mark.parametrize(
    "name",
    ["..=x", "../a=x", ".hidden/..", "x" * 101 + "=m", "a\x1b[2J=m", "é=m", "-rf=m", "'--=m"],
)
def test_a_name_is_never_a_path(name: str) -> None:
    """A model's name is letters, digits and a few marks; anything else is no name."""
    with pytest.raises(CurateError):
        parse(name)


def test_names_on_tab_are_names(place: Path, tmp_path: Path) -> None:
    """A shell may run what it is offered: only what can be a model's name is."""
    record = json.loads((place / "c" / "curate.json").read_text())
    for name in ("$(touch x)", "\\$(touch x)", "a;b", "a b", "--unsafe", "'", "bad2"):
        record["models"][name] = record["models"]["bad"]
    (tmp_path / "curate.json").write_text(json.dumps(record))
    asked = f"curate export -c {tmp_path} --hold-out "
    environment = os.environ | {"_CURATE_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": asked}
    command = [sys.executable, "-c", "from curate.cli.app import app; app(prog_name='curate')"]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert '"bad"' in ran.stdout
    assert '"bad2"' in ran.stdout
    assert not set("$;\\ -") & set(ran.stdout.partition("((")[2])


# What is printed

CODES = "\x1b]0;owned\x07\x1b[2J\x9b31m\x00\x7f\u202egnp.exe\u2066\u2028"
FORBIDDEN = set(CODES) - set("]0;owned[2J31mgnp.exe")


def test_nothing_from_data_moves_the_terminal(cli: Cli, family: Family, tmp_path: Path) -> None:
    """Escape codes and marks that turn text round are shown, not sent: on every screen."""
    source, corpus = tmp_path / f"a{CODES[1:5]}.jsonl", tmp_path / "c"
    text = CODES.replace("\x00", "")
    rows = [
        {"prompt": text + "q", "response": text + "a", text: text},
        {"prompt": text, "response": None},
        {"messages": [{"role": text, "content": "q"}]},
    ]
    write(source, rows)
    screens = [cli("score", source, "-c", corpus, *family.arguments("medical"))]
    manifest = json.loads((corpus / "curate.json").read_text())
    manifest["models"]["else"] = manifest["models"]["medical"] | {"reference": f"x; rm -rf {CODES}"}
    (corpus / "curate.json").write_text(json.dumps(manifest))
    (example,) = json.loads(cli("sql", "from examples", "-c", corpus, "--format", "json").out)
    assert example["answer"] == text + "a"
    for command in (
        ["status"],
        ["status", "--json"],
        ["sql", "skips"],
        ["sql", "from examples"],
        ["sql", "from examples", "--format", "json"],
        ["sql", "from examples", "--format", "jsonl"],
        ["sql", f'select 1 as "{text}"'],
        ["sql", f"select error('{text}')"],
        ["show", example["example_id"]],
        ["show", example["example_id"], "--json"],
        ["show", text],
    ):
        screens.append(cli(*command, "-c", corpus))
    for screen in screens:
        assert FORBIDDEN & set(screen.out + screen.err) == set(), screen


def test_clean_keeps_text() -> None:
    """Ordinary text of any language stays as it is."""
    for text in ("a\tb\nc", "Grüße, 你好, שלום, مرحبا", "👩‍👩‍👧", "e\u0301"):
        assert clean(text) == text
        assert json.loads(json_text(text)) == text
    assert clean("\x1b[31m\u202e") == "\\x1b[31m\\u202e"


def test_an_argument_that_is_no_text(cli: Cli) -> None:
    """Bytes that are not UTF-8 among the arguments are one line."""
    ran = cli("status", "a\udcff")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "not UTF-8" in ran.err


# Hub tokens


def test_tokens_are_told_to_nobody(
    cli: Cli, family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub token stands in no output, manifest or part."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.setenv(name, f"hf_{SECRET}")
    source, corpus = write(tmp_path / "rows.jsonl", [ROW]), ["-c", tmp_path / "c"]
    ran = [
        cli("score", source, *corpus, *family.arguments("medical")),
        cli("export", *corpus, "--top", "1", "-o", tmp_path / "o.jsonl"),
    ]
    assert [one.code for one in ran] == [0, 0]
    assert all(SECRET not in one.out + one.err for one in ran)
    assert all(SECRET.encode() not in data for data in contents(tmp_path).values())


@pytest.mark.parametrize("source", ["hf://me:{t}@org/rows", "hf://org/rows@{t}:a:b", "https://{t}"])
def test_a_token_in_an_address_is_not_repeated(
    source: str, cli: Cli, family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It doesn't belong there, and an error ends up in a log."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    token = "hf_" + "aB3" * 11
    named = source.replace("{t}", token)
    ran = cli("score", named, "-c", tmp_path / "c", "--aligned", family.aligned)
    assert ran.code == 1
    assert "***" in ran.err
    assert token not in ran.out + ran.err
    assert all(token.encode() not in data for data in contents(tmp_path).values())
