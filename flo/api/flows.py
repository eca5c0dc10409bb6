"""What `flow(…)` declares, for the floors that see only the API types; see flo.primitives.flows."""

from flo.primitives.flows import FlowOptions as FlowOptions
from flo.primitives.flows import FlowParams as FlowParams
from flo.primitives.flows import RetryPolicy as RetryPolicy
