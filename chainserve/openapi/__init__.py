"""What the OpenAPI document says of a chain's verbs, whose requests are checked by hand.

FastAPI describes only what it parses itself, and only it knows the names that models get in the
document when several have the same. So each verb has a second route, behind the one that works:
nothing ever reaches it, and FastAPI describes it as any other.
"""

from chainserve.openapi.describing import (
    Documentation as Documentation,
)
from chainserve.openapi.feedback import (
    check_feedback as check_feedback,
    check_public_trace_link as check_public_trace_link,
    create_feedback as create_feedback,
    create_feedback_from_token as create_feedback_from_token,
    create_public_trace_link as create_public_trace_link,
)
from chainserve.openapi.runs import (
    cancel_run as cancel_run,
    cancel_run_by_key as cancel_run_by_key,
    create_run as create_run,
    delete_run as delete_run,
    list_runs as list_runs,
    show_run as show_run,
    stream_run as stream_run,
)
from chainserve.openapi.schemas import (
    config_schema as config_schema,
    input_schema as input_schema,
    output_schema as output_schema,
)
from chainserve.openapi.verbs import (
    batch as batch,
    invoke as invoke,
    plain_stream as plain_stream,
    plain_stream_by_get as plain_stream_by_get,
    stream as stream,
    stream_by_get as stream_by_get,
    stream_events as stream_events,
    stream_log as stream_log,
)
