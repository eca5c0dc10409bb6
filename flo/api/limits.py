"""Every bound by name, for the floors that see only the API types; see flo.primitives.limits."""

from flo.primitives.limits import BUNDLE_BYTES as BUNDLE_BYTES
from flo.primitives.limits import BUNDLE_FILES as BUNDLE_FILES
from flo.primitives.limits import CALL_DEPTH as CALL_DEPTH
from flo.primitives.limits import CANCEL_GRACE_MS as CANCEL_GRACE_MS
from flo.primitives.limits import COMMAND_EVENTS as COMMAND_EVENTS
from flo.primitives.limits import CRASHES_BEFORE_PAUSE as CRASHES_BEFORE_PAUSE
from flo.primitives.limits import EVALUATION_BYTES as EVALUATION_BYTES
from flo.primitives.limits import GUESTS as GUESTS
from flo.primitives.limits import HTTP_REDIRECTS as HTTP_REDIRECTS
from flo.primitives.limits import HTTP_TIMEOUT_MS as HTTP_TIMEOUT_MS
from flo.primitives.limits import INBOX_MESSAGES as INBOX_MESSAGES
from flo.primitives.limits import NESTED_FLOWS as NESTED_FLOWS
from flo.primitives.limits import OPEN_ACTIONS as OPEN_ACTIONS
from flo.primitives.limits import OUTPUT_LINES as OUTPUT_LINES
from flo.primitives.limits import PARAMS_RECORDED_BYTES as PARAMS_RECORDED_BYTES
from flo.primitives.limits import PAYLOAD_HARD_BYTES as PAYLOAD_HARD_BYTES
from flo.primitives.limits import PAYLOAD_SOFT_BYTES as PAYLOAD_SOFT_BYTES
from flo.primitives.limits import SIGNAL_TYPE_BYTES as SIGNAL_TYPE_BYTES
from flo.primitives.limits import SPECULATION_BYTES as SPECULATION_BYTES
from flo.primitives.limits import STARLARK_STEPS as STARLARK_STEPS
from flo.primitives.limits import STOP_GRACE_MS as STOP_GRACE_MS
from flo.primitives.limits import VALUE_DEPTH as VALUE_DEPTH
