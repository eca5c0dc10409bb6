"""The resource kind tempdir."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flo.connectors.tempdir import remove_tree
from tests.connectors.conftest import Bench

REMOVE = "__import__('flo.connectors.tempdir', fromlist=['x']).remove_tree"


def opening(mark: str = "node/run/0/tmp", **other: Any) -> dict[str, Any]:
    return {"name": "tmp", "kind": "tempdir", "mark": mark, "generation": 1, "params": {}, **other}


def test_it_is_private_and_at_the_same_path_with_its_content_in_the_next_generation(bench: Bench):
    path = bench.ok("resource.open", **opening())["path"]
    Path(path, "file").write_text("kept")

    again = bench.ok("resource.open", **opening(generation=2))["path"]

    assert again == path and os.path.isabs(path) and Path(path).parent == bench.directory
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    assert Path(path, "file").read_text() == "kept"


def test_each_mark_has_a_directory_of_its_own(bench: Bench):
    marks = ["n/r/0/tmp", "n/r/0.1/tmp", "n/s/0/tmp", "m/r/0/tmp", "n/r/0/../../etc", "n/r/0/" + "x" * 500]
    paths = {bench.ok("resource.open", **opening(mark))["path"] for mark in marks}

    assert len(paths) == len(marks)
    assert all(Path(path).parent == bench.directory for path in paths)


def test_closing_removes_it_and_may_be_repeated(bench: Bench):
    path = Path(bench.ok("resource.open", **opening())["path"])
    (path / "a" / "b").mkdir(parents=True)
    (path / "a" / "b" / "file").write_text("x")

    assert bench.ok("resource.close", **opening()) is None
    assert not path.exists()
    assert bench.ok("resource.close", **opening(generation=2)) is None


def test_what_stands_in_its_place_is_not_taken_over(bench: Bench, tmp_path: Path):
    path = Path(bench.ok("resource.open", **opening())["path"])
    path.rmdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    path.symlink_to(elsewhere)

    error = bench.error("resource.open", **opening(generation=2))

    assert error["kind"] == "resource"
    assert error["message"] == f"resource tmp (tempdir): {path} is there and is not a directory of this user"
    assert bench.ok("resource.close", **opening()) is None
    assert elsewhere.is_dir() and not path.is_symlink()


def test_a_base_that_cannot_be_made_is_named(bench: Bench):
    bench.directory.write_text("a file")

    error = bench.error("resource.open", **opening())

    assert error["kind"] == "resource" and str(bench.directory) in error["message"], error


def test_bad_input_is_refused(bench: Bench):
    assert "there is no kind balloon" in bench.error("resource.open", **opening(kind="balloon"))["message"]
    assert bench.error("resource.open", name="x")["kind"] == "bad_argument"
    for mark in ("", "a#b", "a\0b"):
        error = bench.error("resource.open", **opening(mark))
        assert error["kind"] == "resource" and "a name must not hold # or a zero byte" in error["message"]


# ---------------------------------------------------------------------------------------------- removing trees


def test_read_only_content_is_removed(tmp_path: Path):
    tree = tmp_path / "tree"
    (tree / "a" / "b").mkdir(parents=True)
    (tree / "a" / "b" / "file").write_text("x")
    (tree / "a" / "b" / "file").chmod(0o400)
    for folder in (tree / "a" / "b", tree / "a", tree):
        folder.chmod(0)

    remove_without_privileges(tree)

    assert not tree.exists()


def test_links_are_removed_and_never_followed(tmp_path: Path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("x")
    tree = tmp_path / "tree"
    (tree / "in").mkdir(parents=True)
    (tree / "link").symlink_to(outside)
    (tree / "in" / "link").symlink_to(outside)
    (tree / "in" / "hard").hardlink_to(outside / "file")
    (tree / "in" / "broken").symlink_to("nowhere")
    os.mkfifo(tree / "in" / "pipe")

    remove_tree(tree)

    assert not tree.exists() and (outside / "file").read_text() == "x"


def test_a_tree_deeper_than_any_path_is_removed(tmp_path: Path):
    tree = tmp_path / "tree"
    tree.mkdir()
    here = os.open(tree, os.O_RDONLY)
    for _ in range(1_500):  # over 4,096 characters of path, and more levels than Python recurses
        os.mkdir("deep", dir_fd=here)
        below = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)

    remove_tree(tree)

    assert not tree.exists()


def test_a_wide_tree_is_removed(tmp_path: Path):
    tree = tmp_path / "tree"
    for i in range(10):
        for j in range(10):
            (tree / f"{i}" / f"{j}" / "x").mkdir(parents=True)
            (tree / f"{i}" / f"{j}" / "file").write_text("x")

    remove_tree(tree)

    assert not tree.exists()


def test_what_is_not_there_is_removed_already(tmp_path: Path):
    remove_tree(tmp_path / "tree")


def remove_without_privileges(tree: Path) -> None:
    """In a process to which modes mean something, even when the superuser runs the tests."""
    command = [sys.executable, "-c", f"from pathlib import Path; {REMOVE}(Path({str(tree)!r}))"]
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("the superuser passes every mode, and setpriv is not there to take that away")
        command = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", *command]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
