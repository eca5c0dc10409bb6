"""Labels of modules: what may stand in a `load`, and the canonical name that it means.

    ./x.flow  ../x.flow     beside the loading file
    //dir/x.flow            from the root, the folder of the entry script
    flo/prelude/v1          the prelude, also as pkg.flowmetal.io/prelude/v1

The canonical label of a file is its path from the root, `dir/x.flow`; that of the prelude is `flo/prelude/v1`.
"""

from __future__ import annotations

import re

from flo.worker.prelude_files import PRELUDE, PRELUDE_LABELS

SUFFIX = ".flow"
# A backslash means a folder elsewhere; control characters would break messages, surrogates cannot be stored.
_FORBIDDEN = re.compile("[\x00-\x1f\x7f\\\\\ud800-\udfff]")


class BadLabel(Exception):
    """A label that means no module. `code` is one of flo.worker.problems.CODES."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def resolve(importer: str, label: str) -> str:
    """The canonical label that `label` means in the file `importer` (itself canonical). Raises BadLabel."""
    if label in PRELUDE_LABELS:
        return PRELUDE
    if label.startswith("//"):
        parts, rest = [], label[2:]
    elif label.startswith(("./", "../")):
        parts, rest = importer.split("/")[:-1], label
    else:
        raise BadLabel(
            "load-unknown",
            f'unknown module "{_shown(label)}": load "{PRELUDE}", "./file.flow" beside this file, '
            'or "//folder/file.flow" from the folder of the script',
        )
    for part in rest.split("/"):
        if not part:
            raise _no_file(label)
        if part == "..":
            if not parts:
                raise BadLabel("load-escape", f'"{_shown(label)}" leads out of the folder of the script')
            parts.pop()
        elif part != ".":
            parts.append(part)
    canonical = "/".join(parts)
    if not is_canonical(canonical) or not canonical.endswith(SUFFIX):
        raise _no_file(label)
    return canonical


def is_canonical(label: str) -> bool:
    """Whether the label names a file below the root, and can name no other."""
    parts = label.split("/")
    return not any(part in ("", ".", "..") for part in parts) and not _FORBIDDEN.search(label)


def _no_file(label: str) -> BadLabel:
    return BadLabel("load-unknown", f'unknown module "{_shown(label)}": a label ends with the name of a .flow file')


def _shown(label: str) -> str:
    return label if len(label) <= 200 else label[:200] + "…"
