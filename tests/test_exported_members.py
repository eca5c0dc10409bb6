"""The public surface of `import flo` is a list that is kept by hand: `__all__`."""

from __future__ import annotations

from types import ModuleType

import flo


def test_all_is_sorted():
    assert list(flo.__all__) == sorted(flo.__all__, key=str.casefold)


def test_every_name_in_all_can_be_imported():
    missing = [name for name in flo.__all__ if not hasattr(flo, name)]

    assert missing == []


def test_no_public_name_is_missing_from_all():
    public = {
        name
        for name, value in vars(flo).items()
        if not name.startswith("_")
        and not isinstance(value, ModuleType)
        and str(getattr(value, "__module__", "")).startswith("flo")
    }

    assert public <= set(flo.__all__)


def test_the_public_names_are_these():
    """A name that appears or disappears is a decision: change this list with it."""
    assert set(flo.__all__) >= {"FloError", "RunFailed", "open"}


def test_every_public_name_has_a_docstring():
    undocumented = [name for name in flo.__all__ if not (getattr(flo, name).__doc__ or "").strip()]

    assert undocumented == []
