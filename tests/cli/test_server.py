"""`flo server …` where no process is needed; tests/server/test_serve.py has the rest."""

from __future__ import annotations

import re
import tomllib

import pytest
from typer.testing import CliRunner

from flo.cli._app import app
from flo.cli._server import _duration, _family


def flo(*words: str):
    return CliRunner().invoke(app, ["server", *words])


def test_a_secret_is_new_each_time():
    first, second = flo("secret"), flo("secret")

    assert re.fullmatch(r"flo-secret-[0-9a-f]{64}\n", first.stdout)
    assert first.stdout != second.stdout


def test_the_file_of_defaults_is_printed():
    done = flo("start", "--default-config")

    assert done.exit_code == 0
    assert tomllib.loads(done.stdout)["server"]["port"] == 9000


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--port", "0"], "--port"),
        (["--port", "70000"], "--port"),
        (["--metrics-port", "x"], "--metrics-port"),
        (["--shards", "257"], "--shards"),
        (["--partitions", "16385"], "--partitions"),
        (["--durability", "soon"], "--durability"),
        (["--log-level", "loud"], "--log-level"),
        (["--log-format", "xml"], "--log-format"),
    ],
)
def test_wrong_flags_are_named_and_nothing_is_begun(words, named, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = flo("start", "--data-dir", str(tmp_path / "data"), *words)

    assert done.exit_code == 2
    assert named in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_file_in_the_working_directory_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flo.toml").write_text("[server]\nprot = 1\n")

    done = flo("start")

    assert done.exit_code == 1
    assert done.stderr.count("\n") == 1 and "server.prot" in done.stderr


def test_inspect_of_nothing_is_an_error(tmp_path):
    assert flo("inspect", str(tmp_path / "none")).exit_code == 1


def test_no_server_is_running_on_a_new_directory(tmp_path):
    status = flo("status", "--data-dir", str(tmp_path))
    stopped = flo("stop", "--data-dir", str(tmp_path))

    assert (status.exit_code, stopped.exit_code) == (1, 1)
    assert "not running" in status.stdout and "no server is running" in stopped.stderr


def test_names_of_families_in_the_text_of_metrics():
    assert _family("# HELP flo_a_total Words of it.") == "flo_a_total"
    assert _family('flo_a_total{queue="x y"} 1.0') == "flo_a_total"
    assert _family("flo_b 2\n") == "flo_b"


def test_uptimes_are_shown_in_days_hours_minutes_and_seconds():
    assert _duration(2 * 86_400 + 3 * 3_600 + 4 * 60 + 5) == "2d 3h 4m 5s"
