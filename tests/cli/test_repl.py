"""`flo repl` against a server."""

from __future__ import annotations


def test_lines_are_performed_until_the_input_ends(live):
    lines = "SET greeting 'hello there'\nget greeting\nDEL greeting\nGET greeting\n\nPING\n"
    done = live("repl", stdin=lines)

    first, *rest = done.stdout.splitlines()
    assert done.exit_code == 0 and first.startswith("OK (version ")
    assert rest[0] == "hello there" and rest[1].startswith("OK (version ") and rest[2:] == ["(nil)", "PONG"]


def test_use_goes_to_another_namespace(live):
    live.ok("-n", "repl-other", "kv", "set", "a:1", "x")

    assert live.ok("repl", stdin="USE repl-other\nKEYS a:\nKEYS zz\nQUIT\nPING\n") == "OK\na:1\nno keys\n"


def test_errors_are_told_and_the_next_line_is_performed(live):
    done = live("repl", stdin="GET\nNOPE\nSET 'a\nDEL missing\nSET _sys:x 1\nPING\n")

    assert (done.exit_code, done.stdout) == (0, "PONG\n")
    assert "GET takes 1 argument" in done.stderr and "no such command" in done.stderr
    assert "[not_found]" in done.stderr and "[unauthorized]" in done.stderr
