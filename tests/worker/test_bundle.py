"""Bundles: what goes in, what is refused and where, and what their digest covers."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flo.api.errors import ScriptError
from flo.worker import bundle as bundle_module
from flo.worker import check as check_module
from flo.worker.bundle import Bundle, BundleDamaged
from flo.worker.labels import BadLabel, resolve
from flo.worker.prelude_files import PRELUDE, installed_prelude
from flo.worker.problems import Problem

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    root = tmp_path / "root"
    root.mkdir()
    monkeypatch.chdir(root)

    def write(name: str, text: str | bytes) -> Path:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return write


def refused(path: Path | str) -> list[Problem]:
    with pytest.raises(ScriptError) as caught:
        Bundle.from_script(path)
    problems = list(caught.value.problems)
    for problem in problems:
        assert f"{problem.file}:{problem.line}:{problem.col}: {problem.code}: " in str(caught.value)
    return problems


def only(path: Path | str) -> tuple[str, str, str]:
    """Place, code and message of the one problem."""
    (problem,) = refused(path)
    return problem.where, problem.code, problem.message


# -- what goes in


def test_a_bundle_holds_the_script_and_everything_it_loads_under_paths_from_its_folder(write: Write) -> None:
    write("lib/a.flow", 'load("../top.flow", "t")\nload("./deep/b.flow", "b")\na = t + b\n')
    write("lib/deep/b.flow", 'load("//top.flow", "t")\nb = t\n')
    write("top.flow", "t = 1\n")
    write("unused.flow", "while")
    script = write(
        "main.flow", 'load("pkg.flowmetal.io/prelude/v1", "flow")\nload("//lib/a.flow", "a")\nx = [flow, a]\n'
    )

    bundle = Bundle.from_script(script)

    assert bundle.entry == "main.flow"
    assert set(bundle.scripts) == {"main.flow", "lib/a.flow", "lib/deep/b.flow", "top.flow"}
    assert bundle.files[PRELUDE] == installed_prelude()["v1.star"]
    assert bundle.resolve("lib/deep/b.flow", "../a.flow") == "lib/a.flow"


def test_a_bundle_survives_its_bytes(write: Write) -> None:
    bundle = Bundle.from_script(write("main.flow", 'print("Grüße")\n'))

    again = Bundle.from_bytes(bundle.data, digest=bundle.digest)

    assert again == bundle and hash(again) == hash(bundle)
    assert again.files == bundle.files and again.prelude == bundle.prelude and again.entry == bundle.entry
    assert again.root is None


def test_the_digest_is_that_of_the_bytes_and_covers_content_alone(write: Write) -> None:
    one = Bundle.from_script(write("here/main.flow", "x = 1\n"))
    same = Bundle.from_script(write("elsewhere/main.flow", "x = 1\n"))
    renamed = Bundle.from_script(write("here/other.flow", "x = 1\n"))

    assert one.digest == hashlib.sha256(one.data).digest() == same.digest != renamed.digest


def test_the_digest_changes_with_a_loaded_module_and_with_the_prelude(write: Write) -> None:
    write("lib.flow", "x = 1\n")
    script = write("main.flow", 'load("./lib.flow", "x")\ny = x\n')
    before = Bundle.from_script(script)
    write("lib.flow", "x = 2\n")
    after = Bundle.from_script(script)
    other_prelude = Bundle(before.scripts, before.entry, prelude={"v1.star": "flow = None\n"})

    assert len({before.digest, after.digest, other_prelude.digest}) == 3


def test_a_bundle_cannot_be_changed(write: Write) -> None:
    bundle = Bundle.from_script(write("main.flow", "x = 1\n"))

    with pytest.raises(TypeError):
        bundle.files["main.flow"] = "x = 2"  # type: ignore[index]
    bundle.scripts["main.flow"] = "x = 2"
    assert bundle.files["main.flow"] == "x = 1\n"


def test_a_byte_order_mark_is_no_part_of_the_text(write: Write) -> None:
    assert Bundle.from_script(write("m.flow", b"\xef\xbb\xbfx = 1\n")).files["m.flow"] == "x = 1\n"


def test_a_script_given_as_a_link_loads_beside_the_file_that_the_link_means(write: Write, tmp_path: Path) -> None:
    write("lib.flow", "x = 1\n")
    script = write("main.flow", 'load("./lib.flow", "x")\ny = x\n')
    link = tmp_path / "link.flow"
    link.symlink_to(script)

    assert Bundle.from_script(link) == Bundle.from_script(script)


def test_a_link_to_a_file_inside_the_folder_is_followed(write: Write) -> None:
    real = write("real.flow", "x = 1\n")
    (real.parent / "alias.flow").symlink_to(real)

    bundle = Bundle.from_script(write("main.flow", 'load("./alias.flow", "x")\ny = x\n'))

    assert bundle.files["alias.flow"] == "x = 1\n"


# -- loads that are refused


def test_an_unknown_module_is_refused_at_its_label(write: Write) -> None:
    where, code, message = only(write("m.flow", 'x = 1\nload(\n    "pkg.flowmetal.io/nothing/v9",\n    "flow",\n)\n'))

    assert (where, code) == ("m.flow:3:5", "load-unknown")
    assert '"pkg.flowmetal.io/nothing/v9"' in message


@pytest.mark.parametrize(
    "label", ["lib.flow", "", "/etc/x.flow", "./lib", "./lib.star", "//", "./", "flo/prelude/v2", ".//x.flow",
              "./a\\\\b.flow", "./x\\n.flow", "./\\0.flow"],
)  # fmt: skip
def test_labels_of_other_shapes_name_no_module(write: Write, label: str) -> None:
    (problem,) = refused(write("m.flow", f'load("{label}", "x")\n'))

    assert (problem.where, problem.code) == ("m.flow:1:6", "load-unknown")
    assert "\n" not in problem.message


def test_a_missing_file_is_refused_at_its_label_and_named_as_the_person_would_find_it(write: Write) -> None:
    write("sub/lib.flow", 'load("./absent.flow", "x")\ny = x\n')

    assert only(write("m.flow", 'load("./sub/lib.flow", "y")\nz = y\n')) == (
        "sub/lib.flow:1:6", "load-missing", "there is no file sub/absent.flow",
    )  # fmt: skip


def test_a_folder_and_a_device_are_no_modules(write: Write) -> None:
    script = write("m.flow", 'load("./sub.flow", "x")\nload("./pipe.flow", "y")\n')
    (script.parent / "sub.flow").mkdir()
    os.mkfifo(script.parent / "pipe.flow")

    assert [(p.line, p.code) for p in refused(script)] == [(1, "load-missing"), (2, "load-missing")]


@pytest.mark.parametrize("label", ["../x.flow", "../../../etc/hostname.flow", "//../x.flow", "./a/../../x.flow"])
def test_dots_cannot_lead_out_of_the_folder(write: Write, tmp_path: Path, label: str) -> None:
    (tmp_path / "x.flow").write_text("secret = 1\n")

    where, code, message = only(write("m.flow", f'load("{label}", "secret")\n'))

    assert (where, code) == ("m.flow:1:6", "load-escape")
    assert label in message


def test_a_linked_file_cannot_lead_out_of_the_folder(write: Write, tmp_path: Path) -> None:
    (tmp_path / "x.flow").write_text("secret = 1\n")
    script = write("m.flow", 'load("./link.flow", "secret")\n')
    (script.parent / "link.flow").symlink_to(tmp_path / "x.flow")

    assert only(script)[:2] == ("m.flow:1:6", "load-escape")


def test_a_linked_folder_cannot_lead_out_of_the_folder(write: Write, tmp_path: Path) -> None:
    (tmp_path / "x.flow").write_text("secret = 1\n")
    script = write("m.flow", 'load("./link/x.flow", "secret")\n')
    (script.parent / "link").symlink_to(tmp_path)

    assert only(script)[:2] == ("m.flow:1:6", "load-escape")


def test_a_circle_of_loads_is_refused_where_it_closes(write: Write) -> None:
    write("a.flow", 'load("./b.flow", "b")\na = b\n')
    write("b.flow", 'x = 1\nload("./a.flow", "a")\nb = a\n')

    where, code, message = only(write("m.flow", 'load("./a.flow", "a")\nx = a\n'))

    assert (where, code) == ("b.flow:2:6", "load-cycle")
    assert "a.flow loads b.flow loads a.flow" in message


def test_a_script_that_loads_itself_is_a_circle(write: Write) -> None:
    assert only(write("m.flow", 'load("./m.flow", "x")\nx = 1\n'))[:2] == ("m.flow:1:6", "load-cycle")


def test_a_module_loaded_by_two_others_is_no_circle(write: Write) -> None:
    write("base.flow", "x = 1\n")
    write("a.flow", 'load("./base.flow", "x")\na = x\n')
    write("b.flow", 'load("./base.flow", "x")\nload("./a.flow", "a")\nb = x + a\n')

    Bundle.from_script(write("m.flow", 'load("./a.flow", "a")\nload("./b.flow", "b")\nc = a + b\n'))


def test_a_long_chain_of_loads_is_walked(write: Write) -> None:
    for i in range(400):
        write(f"m{i}.flow", f'load("./m{i + 1}.flow", "x")\n')
    write("m400.flow", "x = 1\n")

    assert len(Bundle.from_script("m0.flow").scripts) == 401


def test_a_name_that_the_module_does_not_bind_is_refused_at_the_name(write: Write) -> None:
    write("there.flow", "count = 1\ndef inner():\n    ghost = 1\n")

    where, code, message = only(write("m.flow", 'load(\n  "./there.flow",\n  "count",\n  g = "cuont",\n)\n'))

    assert (where, code) == ("m.flow:4:7", "load-name")
    assert message == "there.flow has no `cuont`, did you mean `count`?"


def test_a_private_name_cannot_be_loaded(write: Write) -> None:
    write("there.flow", "_x = 1\n")

    assert only(write("m.flow", 'load("./there.flow", y = "_x")\n'))[:2] == ("m.flow:1:26", "load-private")


def test_an_unknown_name_of_the_prelude_is_refused_at_the_name(write: Write) -> None:
    where, code, message = only(write("m.flow", 'load("flo/prelude/v1", "flow", "flwo")\n'))

    assert (where, code) == ("m.flow:1:32", "load-name")
    assert "`flwo`, did you mean `flow`?" in message


def test_every_public_name_of_the_prelude_can_be_loaded(write: Write) -> None:
    names = ["flow", "FlowContext", "unwrap", "args", "retry", "context", "tempdir", "process", "lock", "json"]

    Bundle.from_script(write("m.flow", f'load("flo/prelude/v1", {", ".join(map(repr, names))})\n'))


def test_the_problems_of_all_files_are_told_at_once(write: Write) -> None:
    write("bad.flow", "while True:\n    pass\n")
    script = write("m.flow", 'load("./bad.flow", "x")\nload("./none.flow", "y")\nload("nope", "z")\nprint(undefined)\n')

    assert [(p.where, p.code) for p in refused(script)] == [
        ("m.flow:2:6", "load-missing"),
        ("m.flow:3:6", "load-unknown"),
        ("m.flow:4:7", "unknown-name"),
        ("bad.flow:1:1", "syntax"),
    ]


# -- files that are refused


def test_a_loaded_file_that_is_not_utf8_is_refused_at_its_load(write: Write) -> None:
    write("bin.flow", b"x = 1\ny = '\xff'\n")

    where, code, message = only(write("m.flow", 'load("./bin.flow", "x")\n'))

    assert (where, code) == ("m.flow:1:6", "load-damaged")
    assert "byte 0xff at 2:6" in message


def test_a_script_that_is_not_utf8_is_refused_at_the_byte(write: Write) -> None:
    assert only(write("m.flow", b"x = 1\ny = '\xc3\x28'\n"))[:2] == ("m.flow:2:6", "not-utf8")


def test_a_script_that_is_not_there_is_refused(write: Write, tmp_path: Path) -> None:
    assert only("none.flow") == ("none.flow:0:0", "script-missing", "there is no file none.flow")
    assert only(tmp_path)[1] == "script-missing"


def test_files_over_the_limit_of_bytes_are_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_module, "BUNDLE_BYTES", 100)
    write("big.flow", "#" * 60)
    script = write("m.flow", 'load("./big.flow", "x")\n'.ljust(50, "#"))

    assert only(script)[:2] == ("m.flow:1:6", "bundle-too-large")
    assert only(write("n.flow", "#" * 101))[1] == "bundle-too-large"
    Bundle.from_script(write("n.flow", "#" * 100))


def test_more_files_than_the_limit_are_refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_module, "BUNDLE_FILES", 3)
    for name in "abc":
        write(f"{name}.flow", f"{name} = 1\n")
    two = 'load("./a.flow", "a")\nload("./b.flow", "b")\n'

    Bundle.from_script(write("m.flow", two))
    assert only(write("m.flow", two + 'load("./c.flow", "c")\n'))[:2] == ("m.flow:3:6", "bundle-too-many")


def test_a_script_with_a_name_that_cannot_be_stored_is_refused(write: Write) -> None:
    assert only(write("a\nb.flow", "x = 1\n"))[1] == "script-missing"


# -- bytes that are refused


def encoded(**changes: object) -> bytes:
    content: dict[str, object] = {
        "format": 1, "entry": "m.flow", "files": [["m.flow", "x = 1"]], "version": "v1", "prelude": [["v1.star", ""]],
    }  # fmt: skip
    return msgspec.msgpack.encode(list((content | changes).values()))


def test_bytes_in_the_canonical_form_are_accepted() -> None:
    assert Bundle.from_bytes(encoded()).files["m.flow"] == "x = 1"


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not a bundle"),
        (b"\xc1 nonsense", "not a bundle"),
        (encoded()[:-1], "not a bundle"),
        (encoded() + b"\x00", "not a bundle"),
        (encoded(entry="n.flow"), "lacks a part"),
        (encoded(format=0), "lacks a part"),
        (encoded(format=2), "format 2"),
        (encoded(prelude=[]), "lacks a part"),
        (encoded(files=[["m.flow", "x"], ["../m.flow", "x"]]), "outside its root"),
        (encoded(files=[["m.flow", "x"], [PRELUDE, "x"]]), "outside its root"),
        (encoded(files=[["m.flow", "x"], ["a.flow", "x"]]), "canonical form"),
        (encoded(files=[["m.flow", "x"], ["m.flow", "y"]]), "canonical form"),
        (encoded(extra=1), "canonical form"),
        (b"\x91" * 5000, "not a bundle"),
    ],
)
def test_damaged_bytes_are_refused_with_a_reason(data: bytes, says: str) -> None:
    with pytest.raises(BundleDamaged, match=says):
        Bundle.from_bytes(data)


def test_bytes_of_another_digest_are_refused() -> None:
    with pytest.raises(BundleDamaged, match="digest"):
        Bundle.from_bytes(encoded(), digest=b"\0" * 32)


def test_bytes_over_the_limits_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_module, "BUNDLE_BYTES", 4)

    with pytest.raises(BundleDamaged, match="is over"):
        Bundle.from_bytes(encoded())


@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_bundle_or_damaged(data: bytes) -> None:
    with contextlib.suppress(BundleDamaged):
        assert Bundle.from_bytes(data).data == data


@given(at=st.integers(0, len(encoded()) - 1), byte=st.integers(0, 255))
def test_any_changed_byte_is_damage_or_another_content(at: int, byte: int) -> None:
    data = bytearray(encoded())
    data[at] = byte
    with contextlib.suppress(BundleDamaged):
        assert Bundle.from_bytes(bytes(data)).data == data


# -- labels


@given(parts=st.lists(st.sampled_from(["..", ".", "a", "b.flow", "", "é"]), max_size=6), root=st.booleans())
def test_a_resolved_label_is_a_path_below_the_root(parts: list[str], root: bool) -> None:
    label = ("//" if root else "./") + "/".join(parts)
    try:
        found = resolve("dir/main.flow", label)
    except BadLabel:
        return
    normal = os.path.normpath(os.path.join("" if root else "dir", "./" + "/".join(parts)))
    assert found == normal and found.endswith(".flow") and not found.startswith(("/", ".."))
