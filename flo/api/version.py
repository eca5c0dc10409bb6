"""The version of Flo, for the floors that tell it to each other and to people."""

from __future__ import annotations

from typing import Final

VERSION: Final = "0.1.0"
