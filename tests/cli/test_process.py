"""What only a real process shows: signals, closed pipes, start-up."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flo.log import frame

HERE = Path(__file__).parent
SECONDS = 20


def flo(*words, **how):
    argv = [sys.executable, "-m", "flo", *words]
    return subprocess.run(argv, cwd=HERE.parents[1], text=True, capture_output=True, timeout=SECONDS, **how)


class Waiting:
    """A command whose run has printed `waiting`, and waits."""

    def __init__(self, kind, *words, id="order-7"):
        argv = [sys.executable, HERE / "fake_flo.py", kind, "run", "x.flow::wait", "--id", id, *words]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if "json" not in words:
            assert self.process.stdout.readline() == "waiting\n"

    def end(self):
        out, err = self.process.communicate(timeout=SECONDS)
        return self.process.returncode, out, err


def test_ctrl_c_of_the_owner_exits_130_and_says_how_to_resume():
    command = Waiting("owner", "--data-dir", "/some where")
    command.process.send_signal(signal.SIGINT)
    code, out, err = command.end()

    assert (code, out) == (130, "")
    assert "run order-7 can be resumed" in err and "flo resume order-7 --data-dir '/some where'" in err
    assert "Traceback" not in err


def test_ctrl_c_of_a_guest_ends_the_watching_only():
    command = Waiting("guest")
    command.process.send_signal(signal.SIGINT)
    code, _, err = command.end()

    assert code == 130
    assert "no longer watching run order-7" in err and "flo resume order-7" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_other_signals_that_ask_for_the_end_are_like_ctrl_c(number, code):
    command = Waiting("owner")
    command.process.send_signal(number)
    ended, _, err = command.end()

    assert ended == code and "flo resume order-7" in err


def test_a_second_ctrl_c_ends_at_once():
    command = Waiting("slow")
    command.process.send_signal(signal.SIGINT)
    said = command.process.stderr.readline()
    command.process.send_signal(signal.SIGINT)
    code, _, err = command.end()

    assert code == 130 and "interrupted" in said + err


def test_output_that_cannot_be_written_is_an_error_with_advice_and_no_bug_of_ours():
    with open("/dev/full", "w") as full:
        argv = [sys.executable, HERE / "fake_flo.py", "owner", "run", "x.flow::wait"]
        ended = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True, timeout=SECONDS)

    assert ended.returncode == 1
    assert "Error: stdout cannot be written: No space left on device [output_lost]" in ended.stderr
    assert "flo runs logs ID" in ended.stderr and "bug" not in ended.stderr


@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-"])
def test_a_stream_that_is_closed_from_the_beginning_is_written_to_nobody(closed):
    command = f'"{sys.executable}" -m flo version {closed}'
    ended = subprocess.run(["sh", "-c", command], cwd=HERE.parents[1], capture_output=True, text=True, timeout=SECONDS)

    assert (ended.returncode, ended.stderr) == (0, "")


def test_ctrl_c_while_the_command_is_loaded_shows_no_traceback_of_ours():
    script = "import signal, flo.cli, sys\n"
    script += "class Finder:\n"
    script += "    def find_spec(self, name, path=None, target=None):\n"
    script += "        if name == 'flo.cli._app': signal.raise_signal(signal.SIGINT)\n"
    script += "sys.meta_path.insert(0, Finder())\n"
    script += "flo.cli.main(['version'])\n"
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=HERE.parents[1], capture_output=True, text=True, timeout=SECONDS
    )

    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


def test_a_reader_that_goes_away_ends_the_command_quietly():
    reading, writing = os.pipe()
    os.close(reading)
    argv = [sys.executable, HERE / "fake_flo.py", "owner", "run", "x.flow::echo"]
    done = subprocess.run(argv, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=SECONDS)
    os.close(writing)

    assert (done.returncode, done.stderr) == (0, "")


def test_a_bug_of_ours_ends_with_a_short_message(tmp_path):
    words = ["run", "x.flow::echo", "--id", "r"]
    program = (
        "import sys; from tests.cli.fakes import *; import flo.client.start\n"
        "def broken(*a, **k): raise KeyError('deep down')\n"
        f"flo.client.start.prepare = broken\nfrom flo.cli import main; main({words})"
    )
    for debug in (False, True):
        env = os.environ | {"PYTHONPATH": str(HERE.parents[1])} | ({"FLO_DEBUG": "1"} if debug else {})
        argv = [sys.executable, "-c", program]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS, env=env)

        assert done.returncode == 1 and done.stdout == ""
        assert "Error: KeyError: 'deep down' [internal]" in done.stderr and "FLO_DEBUG=1" in done.stderr
        assert ("Traceback" in done.stderr) is debug


def test_a_text_that_the_terminal_cannot_show_is_no_error(tmp_path):
    env = os.environ | {"PYTHONIOENCODING": "ascii"}
    argv = [sys.executable, HERE / "fake_flo.py", "owner", "run", "x.flow::echo", "--arg", "a=✓"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS, env=env)

    assert done.returncode == 0 and "\\u2713" in done.stdout


def test_the_version_is_printed_by_the_option_and_the_command():
    option, command = flo("--version"), flo("version")

    assert option.returncode == command.returncode == 0
    assert option.stdout == command.stdout
    assert re.fullmatch(r"flo 0\.\d+\.\d+ \(Python 3\.\d+\.\S+, (compiled|interpreted)\)\n", option.stdout)


def test_the_version_as_json_tells_whether_the_hot_modules_are_compiled():
    told = json.loads(flo("version", "-o", "json").stdout)

    assert set(told) == {"version", "python", "build"}
    assert (told["build"] == "interpreted") == frame.__file__.endswith(".py")


def test_without_words_the_help_is_shown_and_it_is_exit_2():
    done = flo()

    assert done.returncode == 2 and "flo run ./hello.flow" in done.stdout + done.stderr


@pytest.mark.parametrize("words", [["--version"], ["--help"], ["runs", "--help"]], ids=" ".join)
def test_start_up_imports_nothing_that_is_slow(words):
    program = (
        f"import sys; from flo.cli._app import command_line; code = command_line({words}); "
        "slow = {'rich', 'asyncio', 'httpx', 'starlark', 'uvloop', 'sqlite3'} & set(sys.modules); "
        "sys.exit(f'imported {slow}' if slow else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=HERE.parents[1], capture_output=True, text=True, timeout=SECONDS
    )

    assert done.returncode == 0, done.stderr


def test_completion_knows_the_commands():
    env = os.environ | {"_FLO_COMPLETE": "complete_bash", "COMP_WORDS": "flo ru", "COMP_CWORD": "1"}
    done = flo(env=env)

    assert {"run", "runs"} <= set(done.stdout.split())


def test_who_waits_for_the_leaving_is_told_why():
    command = Waiting("slow")
    command.process.send_signal(signal.SIGINT)
    said = [command.process.stderr.readline() for _ in range(3)]
    command.process.send_signal(signal.SIGINT)
    command.end()

    assert said[2].startswith("leaving: actions in flight get up to 5 s")


def test_ctrl_c_before_the_directory_is_there_does_not_claim_that_the_run_goes_on():
    argv = [sys.executable, HERE / "fake_flo.py", "busy", "run", "x.flow::wait", "--id", "order-7"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr.readline() == "attaching\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=SECONDS)

    assert process.returncode == 130
    assert "before anything was heard of run order-7" in err and "resume" in err
