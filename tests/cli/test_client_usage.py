"""What client commands refuse before they ask anybody, and where they find whom to ask."""

from __future__ import annotations

import os
import socket

import pytest
import typer
from typer.testing import CliRunner

from flo.cli import _client_options, _contexts
from flo.cli._app import app
from tests.cli.conftest import CLIENT_VARIABLES


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in CLIENT_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def nobody(monkeypatch):
    """Whoever connects fails the test."""

    def connect(*_, **__):
        raise AssertionError("a usage error needs no server")

    monkeypatch.setattr(socket, "create_connection", connect)


def run(*words, stdin=None):
    return CliRunner().invoke(app, list(words), input=stdin, catch_exceptions=False)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("kv set a 1 --nx --xx", "--nx and --xx exclude one another"),
        ("kv set a 1 --nx --cas 3", "--nx and --cas exclude one another"),
        ("kv set a", "Missing argument 'VALUE'"),
        ("kv set a 1 --ttl 5x", "--ttl"),
        ("kv set a 1 --ttl -5", "--ttl"),
        ("kv set a 1 --ttl 99999999999999999999", "--ttl"),
        ("kv set a 1 --cas -1", "--cas"),
        ("kv get a --wait 1 --block 1", "--wait and --block"),
        ("kv get a --block 1 --txn 5", "--txn"),
        ("kv get a --wiat 3", "--wait"),
        ("kv incr a --by 9223372036854775808", "--by"),
        ("kv lst", "'list'"),
        ("kv mget", "Missing argument"),
        ("kv jget a $ --path $", "once"),
        ("kv list a --prefix b", "once"),
        ("kv get a --timeout 0", "--timeout"),
        ("kv get a -o yaml", "none of table, json, raw"),
        ("nosuch", "No such command 'nosuch'"),
        ("quue list", "'queue'"),
        ("--port 70000 kv get a", "--port"),
        ("kv get a --port 0", "--port"),
        ("kv get a --endpoint host:port", "--endpoint"),
        ("kv get a --namespace=", "--namespace"),
        ("queue enqueue q x --priority 256", "--priority"),
        ("queue enqueue q x --priority=-1", "--priority"),
        ("queue ack q one", "'one' is not a valid int"),
        ("stream append s x --partition 0 --partition-key k", "exclude one another"),
        ("stream append s x -H novalue", "--header"),
        ("stream append s - -", "stdin can be read once"),
        ("stream read s --start 0 --after 0", "exclude one another"),
        ("stream read s --follow --block 5", "--follow excludes"),
        ("stream alter s", "needs --retention"),
        ("stream trim s", "exactly one"),
        ("stream trim s --maxlen 1 --maxbytes 1", "exactly one"),
        ("stream group create s -g g --mode nonsense", "--mode"),
        ("stream group join s g", "Missing argument 'CONSUMER'"),
        ("stream group join s g c -g g", "once"),
        ("stream group touch s -g g --ids 1-1", "--consumer"),
    ],
)
def test_wrong_usage_is_exit_2_and_asks_no_server(nobody, words, says):
    done = run(*words.split())

    assert done.exit_code == 2, done.output
    assert says in done.stderr and "Error: " in done.stderr and "Traceback" not in done.stderr


def test_too_many_keys_and_too_much_standard_input_are_not_sent(nobody, monkeypatch):
    monkeypatch.setattr("flo.cli._values.VALUE_BYTES", 10)

    assert "256" in run("kv", "mget", *map(str, range(257))).stderr
    assert "over 10 bytes" in run("kv", "set", "k", "-", stdin="x" * 11).stderr


def test_an_argument_that_is_no_text_is_refused(nobody):
    done = run("queue", "stats", os.fsdecode(b"a\xff"))

    assert done.exit_code == 2 and "no UTF-8 text" in done.stderr


def test_shared_options_stand_before_the_words_or_behind_them_and_the_last_counts():
    def said(*words):
        return run(*words, "-v").stderr.splitlines()[0].partition(": ")[2]

    nobody = ("-p", "1", "kv", "get", "a")
    assert said("-n", "a", *nobody) == "127.0.0.1:1 (--port), namespace a (--namespace)"
    assert said(*nobody, "-n", "b") == "127.0.0.1:1 (--port), namespace b (--namespace)"
    assert said("-n", "a", *nobody, "-n", "b", "-p", "2") == "127.0.0.1:2 (--port), namespace b (--namespace)"
    assert said(*nobody, "--host", "localhost").startswith("localhost:1 (--endpoint)")


def settings(*words):
    """What a command with these options comes to."""
    leaf = typer.core.TyperCommand("probe", callback=lambda **_: None)
    _client_options.add_to(leaf)
    return _client_options.settings(leaf.make_context("probe", list(words)))


def test_an_endpoint_is_that_of_the_flag_the_environment_the_context_or_the_default(monkeypatch):
    assert settings().endpoint == "127.0.0.1:9000"
    run("config", "set-context", "prod", "--endpoint", "db-1", "-n", "shop")
    assert settings()[:4] == ("db-1:9000", "the context", "shop", "the context")
    monkeypatch.setenv("FLO_PORT", "9200")
    assert settings().endpoint == "127.0.0.1:9200"
    monkeypatch.setenv("FLO_ENDPOINT", "elsewhere:1")
    monkeypatch.setenv("FLO_NAMESPACE", "x")
    assert settings()[:4] == ("elsewhere:1", "FLO_ENDPOINT", "x", "FLO_NAMESPACE")
    assert settings("--port", "9100").endpoint == "127.0.0.1:9100"
    assert settings("--port", "9100", "--endpoint", "[::1]:2", "-n", "y")[:3] == ("[::1]:2", "--endpoint", "y")
    assert settings("-e", "[::1]", "-p", "5").endpoint == "[::1]:5"


def test_the_time_out_is_in_milliseconds_or_a_duration():
    assert [settings(*words).timeout_ms for words in ((), ("--timeout", "250"), ("--timeout", "2s"))] == [
        30_000,
        250,
        2_000,
    ]


@pytest.mark.parametrize(
    ("name", "value"),
    [("FLO_PORT", "many"), ("FLO_PORT", "0"), ("FLO_ENDPOINT", "http://x:1"), ("FLO_ENDPOINT", "a:b")],
)
def test_a_wrong_variable_is_named(monkeypatch, nobody, name, value):
    monkeypatch.setenv(name, value)
    done = run("kv", "get", "a")

    assert done.exit_code == 2 and name in done.stderr


def test_contexts_are_kept_in_a_file_for_their_owner_alone(home):
    path = run("config", "init").stdout.strip()
    run("config", "set-context", "one", "--endpoint", "h:1")
    run("config", "set-context", "two", "--namespace", "n")
    assert run("config", "use-context", "two").stdout == "Using two\n"
    run("config", "set-context", "one", "--namespace", "m")

    assert path == str(home / ".flo" / "config.json") and oct(os.stat(path).st_mode)[-3:] == "600"
    stored = _contexts.read()
    assert stored.current_context == "two" and stored.contexts["one"] == _contexts.Context("h:1", "m")
    assert run("config", "show").stdout.splitlines()[1:] == ["   one      h:1       m", "*  two      -         n"]
    missing = run("config", "use-context", "three")
    assert missing.exit_code == 1 and "[not_found]" in missing.stderr
    assert os.listdir(home / ".flo") == ["config.json"], "no drafts stay"


@pytest.mark.parametrize("text", ["{", '{"contexts": []}', '{"current_context": "gone"}'])
def test_a_damaged_file_of_contexts_is_named_and_harms_only_who_needs_it(home, nobody, text):
    (home / ".flo").mkdir()
    (home / ".flo" / "config.json").write_text(text)

    done = run("kv", "get", "a")
    assert done.exit_code == 2 and "config.json" in done.stderr
    assert settings("-p", "1", "-n", "x").endpoint == "127.0.0.1:1"


@pytest.mark.parametrize("group", ["kv", "stream", "stream group", "queue", "queue dlq", "namespace"])
def test_further_names_of_commands_are_told_in_their_help(group):
    command = typer.main.get_command(app)
    for word in group.split():
        command = command.commands[word]

    for alias, name in command.aliases.items():
        assert command.get_command(None, alias) is command.commands[name]
        assert f" {alias}" in command.commands[name].help.partition("\b")[0], alias


def test_raw_output_is_for_client_commands(nobody):
    done = run("-o", "raw", "runs", "list")

    assert done.exit_code == 2 and "none of text, json" in done.stderr
