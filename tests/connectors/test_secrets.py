"""Secrets: where they come from, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from flo.connectors import ConnectorError, SecretStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "flo" / "secrets"
    folder.mkdir(parents=True)
    return folder


def write(path: Path, content: bytes, mode: int = 0o600) -> None:
    path.write_bytes(content)
    path.chmod(mode)


def refusal(store: SecretStore, name: str = "TOKEN") -> str:
    with pytest.raises(ConnectorError) as caught:
        store.get(name)
    assert caught.value.kind == "not_found"
    return caught.value.message


def test_the_environment_wins_over_the_file(folder: Path):
    write(folder / "TOKEN", b"from file\n")

    assert SecretStore(environ={"FLO_SECRET_TOKEN": "from env"}, directory=folder).get("TOKEN") == "from env"
    assert SecretStore(environ={}, directory=folder).get("TOKEN") == "from file"


def test_files_lie_in_the_configuration_folder(folder: Path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder.parent.parent))
    write(folder / "TOKEN", b"value")

    assert SecretStore(environ={}).get("TOKEN") == "value"


def test_a_file_that_others_may_use_is_refused(folder: Path):
    store = SecretStore(environ={}, directory=folder)
    for mode in (0o640, 0o604, 0o660):
        write(folder / "TOKEN", b"value", mode)
        path = folder / "TOKEN"
        assert refusal(store) == f"secret TOKEN is refused: others may use {path} (mode {mode:03o}), chmod 600 it"
    write(folder / "TOKEN", b"value", 0o400)
    assert store.get("TOKEN") == "value"


def test_a_file_that_is_no_text_too_long_or_no_file_is_refused(folder: Path):
    store = SecretStore(environ={}, directory=folder)
    write(folder / "BINARY", b"\xff\xfe")
    write(folder / "LONG", b"x" * (64 * 1024 + 1))
    write(folder / "EMPTY", b"\n")
    (folder / "FOLDER").mkdir(mode=0o700)

    assert refusal(store, "BINARY").endswith("BINARY is not UTF-8 text")
    assert refusal(store, "LONG").endswith("LONG is over 65536 bytes")
    assert refusal(store, "EMPTY") == "secret EMPTY is empty"
    assert refusal(store, "FOLDER").endswith("FOLDER is not a file")
    assert "does not exist: set FLO_SECRET_MISSING or write" in refusal(store, "MISSING")


def test_a_name_is_no_path(folder: Path):
    for name in ("../TOKEN", "a/b", "", "a-b", "x" * 200):
        with pytest.raises(ConnectorError, match="is not the name of a secret"):
            SecretStore(environ={}, directory=folder).get(name)


def test_only_values_that_were_given_are_masked_the_longest_first():
    store = SecretStore(environ={"FLO_SECRET_A": "secret-value", "FLO_SECRET_B": "secret-value-two"})
    text = "secret-value and secret-value-two and secret%2Dvalue"
    assert store.mask(text) == text

    store.get("A")
    store.get("B")

    assert store.mask("secret-value and secret-value-two") == "[secret A] and [secret B]"
    assert "secret-value" not in repr(store) + str(vars(store).keys())


def test_a_value_is_found_in_its_quoted_forms():
    value = 'a b&"c\\d'
    store = SecretStore(environ={"FLO_SECRET_A": value})
    store.get("A")

    assert store.mask("?x=a%20b%26%22c%5Cd") == "?x=[secret A]"
    assert store.mask(repr(value)) == "'[secret A]'"
    assert store.mask_outcome('+{"x":"a b&\\"c\\\\d","n":[1.5,true,null]}') == '+{"x":"[secret A]","n":[1.5,true,null]}'
