"""The Starlark library that flows load, installed as `flo._prelude`. There is no Python here."""
