"""Nobody gets in: by SQL, by a template, a checkpoint, a corpus, a name, or what is printed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curate.cli.tables import clean, json_text
from curate.corpus.corpus import Corpus
from curate.errors import CurateError
from curate.models.fingerprints import fingerprint
from curate.models.references import parse
from curate.reading.examples import read
from curate.storage import parts
from curate.system.sql import _SIDE_EFFECTS
from tests.conftest import Cli, Family
from tests.corpora import corpus as made_corpus

SECRET = "it-is-a-secret-7f3a"
SECRET_ROWS = f'{{"prompt": "q", "response": "{SECRET}"}}\n'
SECRET_TABLE = pa.table({"x": [SECRET]})


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus `c`, and files beside it that no query may read."""
    place = tmp_path_factory.mktemp("place")
    made_corpus(place / "c", ["a", "b"], {"chat": [1.0, 2.0], "bad": [2.0, 5.0]})
    for name in ("secret.txt", "secret.csv", "secret.json", "c2.txt", "rows.jsonl"):
        (place / name).write_text(SECRET_ROWS)
    pq.write_table(SECRET_TABLE, place / "secret.parquet")
    (place / "c" / "link.csv").symlink_to(place / "secret.csv")
    return place


@pytest.fixture
def place(shared: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working directory is that folder, and nothing in it may change."""
    monkeypatch.chdir(shared)
    monkeypatch.setenv("CURATE_TEST_SECRET", SECRET)
    before = everything(shared)
    yield shared
    assert everything(shared) == before


def everything(folder: Path) -> dict[str, bytes]:
    """All files under a folder with their bytes."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


WAYS_OUT = [
    # reading what is not the corpus
    "select content from read_text('{p}/secret.txt')",
    "select content from read_blob('secret.txt')",
    "from read_csv('{p}/secret.csv')",
    "from 'secret.csv'",
    "from '{p}/secret.parquet'",
    "from read_parquet(['{p}/secret.parquet'])",
    "from parquet_metadata('{p}/secret.parquet')",
    "from parquet_kv_metadata('{p}/secret.parquet')",
    "from read_json('{p}/secret.json')",
    "from read_ndjson_objects('{p}/secret.json')",
    "from sniff_csv('{p}/secret.csv')",
    "from glob('{p}/*')",
    "select content from read_text('{p}/c/../secret.txt')",
    "select content from read_text('c/./../secret.txt')",
    "select content from read_text('file://{p}/secret.txt')",
    "select content from read_text('{p}/c2.txt')",
    "from read_csv('{p}/c/link.csv')",
    "from read_duckdb('{p}/other.duckdb')",
    "from query('select content from read_text(''{p}/secret.txt'')')",
    "from query_table('{p}/secret.csv')",
    "from json_execute_serialized_sql(json_serialize_sql('from read_text(''{p}/secret.txt'')'))",
    "select (select content from read_text('{p}/secret.txt'))",
    "with x as (select content from read_text('{p}/secret.txt')) from x",
    "describe select * from read_csv('{p}/secret.csv')",
    "summarize from read_csv('{p}/secret.csv')",
    # the network, extensions, secrets, Python
    "from read_parquet('https://localhost:1/x.parquet')",
    "select content from read_text('s3://bucket/key')",
    "from duckdb_secrets(redact := false)",
    "from st_read('{p}/secret.csv')",
    "from sqlite_scan('{p}/secret.csv', 'x')",
    "install httpfs",
    "load httpfs",
    "load '{p}/evil.duckdb_extension'",
    "select getenv('CURATE_TEST_SECRET')",
    "from leaked",
    "from SECRET_TABLE",
    # writing
    "copy (select 1) to '{p}/out.csv'",
    "copy (select 1) to '{p}/c/out.csv'",
    "with x as (copy (select 1) to '{p}/c/out.csv') from x",
    "with x as (copy (select 1) to '{p}/c/examples/part-000000.parquet') from x",
    "with x as (copy (select 1) to 'c/curate.json' (format csv)) select 1",
    "from (with x as (copy (select 1) to '{p}/c/out.csv') from x)",
    "select exists(with x as (copy (select 1) to '{p}/c/out.csv') from x)",
    "with x as (delete from models returning *) from x",
    "with x as (insert into models select * from models) from models",
    "with x as (update models set role = 'aligned' returning *) from x",
    "select 1 union all (with x as (delete from models returning *) select 2 from x)",
    # of a PIVOT, which DuckDB runs in two steps
    "with x as (copy (select 1) to '{part}') pivot gaps on source using count(*)",
    "with x as (delete from models returning *) pivot x on role using count(*)",
    "pivot gaps on source using count(getenv('CURATE_TEST_SECRET'))",
    "pivot (from query('select 1 as a')) on a using count(*)",
    "pivot (from read_text('{p}/secret.txt')) on content",
    "pivot gaps on source using count(*); drop view gaps",
    "copy (pivot gaps on source using count(*)) to '{part}'",
    "from histogram('{p}/secret.csv', prompt)",
    # SQL in a text, which is another connection's
    "{execute}('with x as (copy (select 1) to ''{p}/c/curate.json'' (format csv)) from x'))",
    "{execute}('with x as (copy (select 1) to ''{part}'' (use_tmp_file false)) from x'))",
    "{execute}('with x as (delete from models returning *) from x'))",
    "{execute}('select content from read_text(''{p}/c/curate.json'')'))",
    "select exists({execute}('with x as (copy (select 1) to ''{p}/c/o.csv'') from x')))",
    "with x as ({execute}('select 1'))) from x",
    "from models, lateral ({execute}('select 1')))",
    "from (pivot ({execute}('select 1'))) on role in ('a') using count(*))",
    "describe {execute}('select 1'))",
    "from System.Main.\"JSON_Execute_Serialized_SQL\"(json_serialize_sql('select 1'))",
    "from query('select 1')",
    "pragma json_execute_serialized_sql(json_serialize_sql('select 1'))",
    "call json_execute_serialized_sql(json_serialize_sql('select 1'))",
    "from read_text('{p}/c/curate.json')",
    "from read_parquet('{part}')",
    "from register_external_resource('a', 'b')",
    "from checkpoint()",
    "from truncate_duckdb_logs()",
    "select list_transform([1], lambda x: write_log('a'))",
    "select sleep_ms(1)",
    "select pg_sleep(1)",
    "select setseed(0.5)",
    "export database '{p}/out'",
    "import database '{p}'",
    "attach '{p}/out.duckdb'",
    "attach '{p}/c/corpus.duckdb'",
    "create table models2 as from models",
    "create or replace view gaps as select 1",
    "drop view gaps",
    "update models set role = 'aligned'",
    "insert into models select * from models",
    "truncate models",
    "create secret (type s3, key_id 'a', secret 'b')",
    "create persistent secret (type s3, key_id 'a', secret 'b')",
    # settings
    "set enable_external_access = true",
    "reset lock_configuration",
    "set allowed_directories = ['/']",
    "pragma enable_profiling",
    "pragma threads = 1",
    "call enable_logging()",
    "from enable_logging(storage := 'file', storage_path := '{p}/c')",
    "from enable_profiling(save_location := '{p}/c/out.json')",
    "set variable x = 1",
    # more than one
    "select 1; copy (select 1) to '{p}/out.csv'",
    "select 1; drop view gaps; select 2",
    "explain analyze copy (select 1) to '{p}/out.csv'",
    "prepare x as select 1",
    "begin",
    "checkpoint",
    "use memory",
    "vacuum",
]


def filled(way: str, place: Path) -> str:
    """A way out with the paths of this place."""
    part = parts.list_parts(place / "c" / "scores" / "bad")[0]
    way = way.replace("{execute}", "from json_execute_serialized_sql(json_serialize_sql")
    return way.replace("{part}", str(part)).replace("{p}", str(place))


@pytest.mark.parametrize("way", WAYS_OUT)
def test_sql_has_no_way_out(way: str, cli: Cli, place: Path) -> None:
    """No query reads what is not the corpus, writes anywhere, changes a setting or adds code."""
    leaked = SECRET_TABLE
    ran = cli("sql", filled(way, place), "-c", place / "c", "--format", "json")
    assert leaked.num_rows == 1
    assert ran.code == 1, ran
    assert ran.err.startswith("Error: ")
    assert ran.err.count("\n") == 1
    assert SECRET not in ran.out + ran.err


def test_one_query_does_not_prepare_the_next(place: Path) -> None:
    """Whatever was asked before on the same corpus, the lock holds and the views stay."""
    corpus = Corpus(place / "c")
    gaps = corpus.gaps().order("rank").fetchall()
    for way in WAYS_OUT:
        with pytest.raises((CurateError, duckdb.Error)):
            corpus.sql(filled(way, place)).fetchall()
    assert corpus.gaps().order("rank").fetchall() == gaps
    assert corpus.sql("select count(*) from models").fetchall() == [(2,)]
    settings = dict(corpus.sql("select name, value from duckdb_settings()").fetchall())
    for name, value in (
        ("enable_external_access", "false"),
        ("lock_configuration", "true"),
        ("autoinstall_known_extensions", "false"),
        ("autoload_known_extensions", "false"),
        ("allow_persistent_secrets", "false"),
        ("python_enable_replacements", "false"),
    ):
        assert settings[name] == value, name


def test_the_connection_itself_opens_the_parts_alone(place: Path) -> None:
    """Past the check of the syntax tree, no file but a part could be written or read."""
    connection = Corpus(place / "c").connection
    for way in (
        "copy (select 1) to '{p}/c/curate.json' (format csv, use_tmp_file false)",
        "copy (select 1) to '{p}/c/out.csv'",
        "copy (select 1) to '{p}/c/examples/part-000009.parquet'",
        "copy (select 1) to '{part}'",
        "{execute}('with x as (copy (select 1) to ''{p}/c/curate.json'') from x'))",
        "attach '{p}/c/new.duckdb'",
        "from read_text('{p}/c/curate.json')",
        "from glob('{p}/c/*')",
    ):
        with pytest.raises(duckdb.Error, match="disabled by configuration"):
            connection.execute(filled(way, place)).fetchall()


def test_every_function_with_side_effects_is_known() -> None:
    """Those that this DuckDB calls volatile are refused, but for these, which only give a value."""
    harmless = {
        *("current_connection_id", "current_query", "current_query_id", "current_transaction_id"),
        *("error", "gen_random_uuid", "random", "stats", "uuid", "uuidv4", "uuidv7", "vector_type"),
    }
    functions = "select distinct function_name from duckdb_functions() where stability = 'VOLATILE'"
    volatile = {name for (name,) in duckdb.connect().execute(functions).fetchall()}
    assert volatile - harmless == _SIDE_EFFECTS - {"getenv", "pg_sleep"}


def test_a_query_too_deep_to_check(place: Path) -> None:
    """It is refused in a line, by us or by DuckDB, and never passes unchecked."""
    for query in ("select " + "+".join(["1"] * 900), "select " + "(" * 9000 + "1" + ")" * 9000):
        with pytest.raises(CurateError, match=r"deep|depth|overflow"):
            Corpus(place / "c").sql(query)


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
def test_ordinary_sql_is_answered(query: str, place: Path) -> None:
    """What only reads passes, whatever words are in it."""
    Corpus(place / "c").sql(query).fetchall()


WHERES_OUT = [
    "exists(select * from read_text('{p}/secret.txt'))",
    "(select content from read_text('{p}/secret.txt')) is null",
    "exists(from '{p}/secret.parquet')",
    "exists(from query('from read_csv(''{p}/secret.csv'')'))",
    "exists(with x as (copy (select 1) to '{p}/out.csv') from x)",
    "exists(with x as (copy (select 1) to '{p}/c/out.csv') from x)",
    "exists({execute}('with x as (copy (select 1) to ''{p}/c/out.csv'') from x')))",
    "exists({execute}('with x as (copy (select 1) to ''{p}/c/curate.json'') from x')))",
    "exists(with x as (delete from models returning *) from x)",
    "exists(from query('select 1'))",
    "write_log('a') is null",
    "sleep_ms(1) is null",
    "exists(from leaked)",
    "exists(from SECRET_TABLE)",
    "true; copy (select 1) to '{p}/out.csv'",
    "true) from examples; drop view gaps; --",
    "true), false) as passes, true as wanted from gaps()), other as (select coalesce((true",
    "true) or (1 = 1",
    "true order by random()",
    "true limit 1",
    "true union select 1",
    "true, false",
    "getenv('CURATE_TEST_SECRET') = ''",
]


@pytest.mark.parametrize("way", WHERES_OUT)
def test_where_only_filters(way: str, cli: Cli, place: Path, tmp_path: Path) -> None:
    """A `--where`, of an export or of a source, is one condition, and reads no other thing."""
    leaked = SECRET_TABLE
    where = filled(way, place)
    with pytest.raises(CurateError):
        list(read([str(place / "rows.jsonl")], where=where))
    assert leaked.num_rows == 1
    output = tmp_path / "o.jsonl"
    ran = cli("export", "-c", place / "c", "--top", "1", "-o", output, "--where", where)
    assert (ran.code, SECRET in ran.err, output.exists()) == (1, False, False), ran
    assert ran.err.startswith("Error: ")


# Templates

ATTACKS = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ messages.__class__.__base__.__subclasses__() }}",
    "{{ cycler.__init__.__globals__.os.popen('touch {p}').read() }}",
    "{{ self.__init__.__globals__.__builtins__.open('{p}', 'w') }}",
    "{{ self._TemplateReference__context.environment.loader }}{{ lipsum.__globals__['os'] }}",
    "{{ raise_exception.__globals__['sys'].modules['os'].system('touch {p}') }}",
    "{{ (messages|tojson).format.__func__.__globals__ }}",
    "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
    "{{ ('{0.__class__}' ~ '')|format(messages) }}{{ ''['__class__']['__mro__'] }}",
    "{{ messages|attr('__class__')|attr('__base__') }}{{ messages.append(1) }}",
    "{% include '/etc/passwd' %}",
    "{% import '/etc/passwd' as x %}",
    "{% extends '/etc/passwd' %}",
    "{{ strftime_now.__globals__ }}{{ ''.join.__self__.__class__.__bases__[0] }}",
    "{{ messages.pop() }}",
    "{{ messages[0].update({'content': 'other'}) }}",
    "{% set x = messages.__setitem__(0, 1) %}",
    "{% for i in range(10 * 100000000) %}x{% endfor %}",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_template_gets_nowhere(attack: str, family: Family, tmp_path: Path) -> None:
    """It reaches no Python, no file and no later conversation: each is refused with a reason."""
    from curate.chat.encode import encode
    from curate.chat.templates import template_of
    from curate.chat.tokens import load_tokenizer

    mark = tmp_path / "touched"
    own = (family.aligned / "chat_template.jinja").read_text()
    tokenizer = load_tokenizer(family.aligned)
    template = template_of(tokenizer, override=own + attack.replace("{p}", str(mark)))
    messages = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    (found,) = encode(tokenizer, template, [messages])
    assert isinstance(found, str), "nothing of this may be scored"
    assert "\n" not in found
    assert not mark.exists()
    assert [m["content"] for m in messages] == ["q", "a"]


def test_text_is_no_template(family: Family) -> None:
    """Jinja in a message stays text: it is never run."""
    from curate.chat.encode import encode
    from curate.chat.templates import template_of
    from curate.chat.tokens import load_tokenizer

    tokenizer = load_tokenizer(family.aligned)
    messages = [
        {"role": "user", "content": "{{ 7 * 7 }}{% for x in y %}"},
        {"role": "assistant", "content": "{{ raise_exception('x') }}"},
    ]
    (found,) = encode(tokenizer, template_of(tokenizer), [messages])
    assert not isinstance(found, str)
    text = tokenizer.decode(found.ids)
    assert "{{ 7 * 7 }}" in text
    assert "{{ raise_exception('x') }}" in text


# Checkpoints


class _Touch:
    """A pickle that makes a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return os.mkdir, (str(self.path),)


def _config(folder: Path, **changes: object) -> None:
    for name in ("adapter_config.json", "config.json"):
        path = folder / name
        if path.exists():
            path.write_text(json.dumps(json.loads(path.read_text()) | changes))
            return


def _pickle(name: str) -> Callable[[Path, Path], None]:
    def spoil(folder: Path, mark: Path) -> None:
        for weights in folder.glob("*.safetensors"):
            weights.unlink()
        (folder / name).write_bytes(pickle.dumps(_Touch(mark)))

    return spoil


def _index(value: object) -> Callable[[Path, Path], None]:
    def spoil(folder: Path, mark: Path) -> None:
        (folder / "model.safetensors").rename(folder.parent / "elsewhere.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": value}))

    return spoil


def _header(text: bytes) -> Callable[[Path, Path], None]:
    def spoil(folder: Path, mark: Path) -> None:
        path = next(folder.glob("*.safetensors"))
        path.write_bytes(len(text).to_bytes(8, "little") + text)

    return spoil


def _endless(folder: Path, mark: Path) -> None:
    """A header of half a TiB, in a file of holes that takes no room."""
    with next(folder.glob("*.safetensors")).open("r+b") as file:
        file.write((1 << 39).to_bytes(8, "little"))
        file.truncate(1 << 40)


def _changed(**changes: object) -> Callable[[Path, Path], None]:
    def spoil(folder: Path, mark: Path) -> None:
        code = f"import os\nos.mkdir({str(mark)!r})\n"
        for name in ("modeling_evil.py", "configuration_evil.py", "tokenization_evil.py"):
            (folder / name).write_text(code)
        _config(folder, **changes)

    return spoil


def _json_bomb(name: str) -> Callable[[Path, Path], None]:
    return lambda folder, mark: (folder / name).write_text("[" * 200_000) and None


EVIL = {"AutoConfig": "configuration_evil.E", "AutoModelForCausalLM": "modeling_evil.E"}


@pytest.mark.parametrize(
    ("which", "spoil", "reason"),
    [
        ("aligned", _pickle("pytorch_model.bin"), "is a pickle"),
        ("aligned", _pickle("model.pt"), "is a pickle"),
        ("medical", _pickle("adapter_model.bin"), "is a pickle"),
        ("aligned", _changed(model_type="evil", auto_map=EVIL), ""),
        ("aligned", _index({"a": "../elsewhere.safetensors"}), "no file beside it"),
        ("aligned", _index({"a": "/etc/passwd"}), "no file beside it"),
        ("aligned", _header(b"{" * 200_000), "not a safetensors file"),
        ("aligned", _endless, "not a safetensors file"),
        ("aligned", _header(b'{"a": {"data_offsets": [-9, 4]}}'), "not a safetensors file"),
        ("aligned", _json_bomb("config.json"), "recursion"),
        ("aligned", _changed(hidden_size="wide"), "hidden_size"),
        ("aligned", _changed(hidden_act="os.system"), "cannot be loaded"),
        ("medical", _json_bomb("adapter_config.json"), "recursion"),
        ("medical", _changed(peft_type="EVIL"), "does not fit"),
        ("medical", _changed(target_modules="("), "does not fit"),
        (
            "medical",
            _changed(megatron_config={}, megatron_core="modeling_evil"),
            None,
        ),
        ("medical", _changed(peft_type="XLORA", adapters={"a": "x/y"}), "other adapters"),
        ("medical", _changed(auto_mapping={"base_model_class": "E", "parent_library": "x"}), None),
    ],
)
def test_a_hostile_model_runs_nothing(
    which: str,
    spoil: Callable[[Path, Path], None],
    reason: str | None,
    cli: Cli,
    family: Family,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Checkpoints and adapters with pickles, code or broken files are one line, and never run."""
    model, mark = tmp_path / "model", tmp_path / "touched"
    shutil.copytree(getattr(family, which), model)
    spoil(model, mark)
    monkeypatch.chdir(model)
    monkeypatch.syspath_prepend(str(model))
    source = tmp_path / "rows.jsonl"
    source.write_text('{"prompt": "q", "response": "a"}\n')
    options = {"aligned": str(family.aligned), "medical": str(family.medical)} | {which: str(model)}
    ran = cli(
        *("score", source, "-c", tmp_path / "c", "-q"),
        *("--aligned", options["aligned"], "--misaligned", options["medical"]),
    )
    assert not mark.exists()
    if reason is None:  # what peft does not use harms nothing
        assert ran.code == 0, ran.err
        return
    assert ran.code == 1, ran
    assert ran.err.splitlines()[-1].startswith("Error: "), ran.err
    assert reason in ran.err
    assert "Traceback" not in ran.err
    assert not (tmp_path / "c").exists()


def test_a_hostile_tokenizer_runs_nothing(
    family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tokenizer with code of its own is not run; broken files are one line."""
    from curate.chat.tokens import load_tokenizer

    for number, (name, text) in enumerate(
        (
            (
                "tokenizer_config.json",
                '{"tokenizer_class": "E", "auto_map": {"AutoTokenizer": ["evil.E", null]}}',
            ),
            ("tokenizer_config.json", "[" * 200_000),
            ("tokenizer.json", "{"),
            ("tokenizer.json", '{"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}}'),
        )
    ):
        folder = tmp_path / f"{number}"
        shutil.copytree(family.aligned, folder)
        (folder / "evil.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'touched')!r})\n")
        (folder / name).write_text(text)
        monkeypatch.chdir(folder)
        try:
            load_tokenizer(folder)
        except CurateError as error:
            assert "\n" not in str(error)
        assert not (tmp_path / "touched").exists()


# Names


@pytest.mark.parametrize(
    "name",
    [
        "..=x",
        "../a=x",
        "a/b",
        ".hidden/..",
        "x" * 101 + "=m",
        "a\x1b[2J=m",
        "é=m",
        "-rf=m",
        "'--=m",
    ],
)
def test_a_name_is_never_a_path(name: str) -> None:
    """A model's name is letters, digits and a few marks; anything else is no name."""
    try:
        found, _ = parse(name)
    except CurateError:
        return
    assert found == "b"  # of a path, its last part


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
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    screens = [cli("score", source, "-c", corpus, *family.arguments("medical"))]
    (example,) = json.loads(cli("sql", "from examples", "-c", corpus, "--format", "json").out)
    assert example["answer"] == text + "a"
    for command in (
        ["status"],
        ["status", "--json"],
        ["sql", "top_gaps"],
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


def test_a_table_of_someone_else_is_clean(cli: Cli, tmp_path: Path) -> None:
    """A reference in a manifest is cleaned and quoted where a command to copy is shown."""
    made_corpus(tmp_path / "c", ["a"], {"chat": [1.0], "bad": [None]})
    path = tmp_path / "c" / "curate.json"
    manifest = json.loads(path.read_text())
    manifest["models"]["bad"]["reference"] = f"x; rm -rf ~ {CODES}"
    path.write_text(json.dumps(manifest))
    ran = cli("status", "-c", tmp_path / "c")
    assert "'bad=x; rm -rf ~ " in ran.out
    assert FORBIDDEN & set(ran.out + ran.err) == set()


def test_clean_keeps_text() -> None:
    """Ordinary text of any language stays as it is."""
    for text in ("a\tb\nc", "Grüße, 你好, שלום, مرحبا", "👩‍👩‍👧", "e\u0301"):
        assert clean(text) == text
        assert json.loads(json_text(text)) == text
    assert clean("\x1b[31m\u202e") == "\\x1b[31m\\u202e"


@pytest.mark.parametrize("command", ["status", "sql", "export", "show"])
def test_an_argument_that_is_no_text(command: str, cli: Cli, place: Path) -> None:
    """Bytes that are not UTF-8 among the arguments are one line."""
    ran = cli(command, "a\udcff", "-c", place / "c")
    assert (ran.code, ran.err.count("\n")) == (1, 1)
    assert "not UTF-8" in ran.err


def test_tokens_are_told_to_nobody(
    cli: Cli, family: Family, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub token stands in no output, manifest or part, whether a run ends well or not."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.setenv(name, f"hf_{SECRET}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    source, corpus = tmp_path / "rows.jsonl", tmp_path / "c"
    source.write_text('{"prompt": "q", "response": "a"}\n')
    ran = [
        cli("score", source, "-c", corpus, *family.arguments("medical")),
        cli("score", source, "-c", tmp_path / "d", "--aligned", "nobody/nothing"),
        cli("export", "-c", corpus, "--top", "1", "-o", tmp_path / "o.jsonl"),
    ]
    assert [one.code for one in ran] == [0, 1, 0]
    assert all(SECRET not in one.out + one.err for one in ran)
    assert all(SECRET.encode() not in data for data in everything(tmp_path).values())


@pytest.fixture
def repeating() -> Iterator[str]:
    """A hub, by its address, that says no and repeats the token."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said = f"no: {self.headers.get('Authorization')}"
            self.send_response(401)
            self.send_header("X-Error-Message", said)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(said.encode())

        do_HEAD = do_GET  # noqa: N815 - the name is the library's

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as hub:
        threading.Thread(target=hub.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{hub.server_port}"
        hub.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "name"), [("data", "HF_TOKEN"), ("model", "HUGGING_FACE_HUB_TOKEN")]
)
def test_a_token_that_the_hub_repeats_is_told_to_nobody(
    what: str, name: str, repeating: str, family: Family, tmp_path: Path
) -> None:
    """Its error is passed on, its echo of the header is not."""
    source, aligned = tmp_path / "rows.jsonl", family.aligned
    source.write_text('{"prompt": "q", "response": "a"}\n')
    named = [source, "nobody/nothing"] if what == "model" else ["hf://nobody/nothing", aligned]
    command = [sys.executable, "-m", "curate", "score", named[0], "--aligned", named[1]]
    tokens = {"HF_TOKEN": "", "HUGGING_FACE_HUB_TOKEN": ""} | {name: f"hf_{SECRET}"}
    hub = {"HF_ENDPOINT": repeating, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    ran = subprocess.run(
        [*map(str, command), "-c", str(tmp_path / "c")],
        env=os.environ | tokens | hub,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 1
    assert "401" in ran.stderr
    assert SECRET not in ran.stdout + ran.stderr
    assert all(SECRET.encode() not in data for data in everything(tmp_path).values())


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
    assert all(token.encode() not in data for data in everything(tmp_path).values())


def test_fingerprints_read_no_file_beside(family: Family, tmp_path: Path) -> None:
    """An index in somebody's checkpoint can't have a file elsewhere read."""
    folder = tmp_path / "model"
    shutil.copytree(family.aligned, folder)
    _index({"w": "../elsewhere.safetensors"})(folder, tmp_path)
    with pytest.raises(CurateError, match="no file beside it"):
        fingerprint(folder)
