"""Outcomes for the floors that see only the API types; see flo.primitives.outcome."""

from flo.primitives.outcome import ERROR_KINDS as ERROR_KINDS
from flo.primitives.outcome import NONE as NONE
from flo.primitives.outcome import Outcome as Outcome
from flo.primitives.outcome import error as error
from flo.primitives.outcome import error_kind as error_kind
from flo.primitives.outcome import is_ok as is_ok
from flo.primitives.outcome import ok as ok
from flo.primitives.outcome import value as value
