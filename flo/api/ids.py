"""Run ids and structural ids for the floors that see only the API types; see flo.primitives.ids."""

from flo.primitives.ids import ROOT as ROOT
from flo.primitives.ids import RUN_ID as RUN_ID
from flo.primitives.ids import base_of as base_of
from flo.primitives.ids import is_run_id as is_run_id
from flo.primitives.ids import new_run_id as new_run_id
from flo.primitives.ids import split_sid as split_sid
from flo.primitives.ids import task_prefix as task_prefix
