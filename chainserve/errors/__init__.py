"""Every error of chainserve, with its stable code and HTTP status.

    ChainServeError
    ├── ConfigurationError               the server is set up wrongly: raised at start
    │   └── DiscoveryError
    ├── RequestError                     the caller can mend the request
    │   ├── InvalidJSONError             422
    │   ├── InvalidInputError            422
    │   ├── InvalidConfigError           422
    │   ├── UnsupportedMediaTypeError    415
    │   ├── BodyTooLargeError            413
    │   ├── BatchTooLargeError           413
    │   ├── RunIdInUseError              409
    │   ├── RunNotFoundError             404
    │   ├── RunNotEndedError             409
    │   ├── InvalidCursorError           400
    │   ├── LogExpiredError              410
    │   ├── OutputNotKeptError           410
    │   ├── FeedbackNotEnabledError      400
    │   ├── FeedbackRefusedError         422
    │   ├── LangSmithNotFoundError       404
    │   ├── InvalidIdempotencyKeyError   400
    │   ├── IdempotencyKeyReusedError    422
    │   ├── InvalidConfigHashError       400
    │   ├── NotAcceptableError           406
    │   ├── CrossSiteError               403
    │   └── PrincipalRequiredError       403
    ├── RemoteError                      a client's: what a server answered it (client_errors)
    └── RunError                         the run ended without success
        ├── RunFailedError               500
        ├── ChainHTTPError               as the chain says
        ├── OutputNotSerializableError   500
        ├── RunCancelledError            499
        ├── RunTimeoutError              504
        ├── LogEvictedError              500
        ├── RecordedRunError             as it was
        └── UpstreamError                502
            ├── UpstreamAuthenticationError  502
            ├── UpstreamRateLimitedError     429
            ├── UpstreamTimeoutError         504
            └── LangSmithError               502
                └── LangSmithTimeoutError    504

Outside a stream an error is answered as a problem document (RFC 9457); inside one it is the
terminal `error` event. Both are made from the same two attributes, `code` and `status_code`. The
text of an unexpected exception goes to the log alone.
"""

from chainserve.errors.base import (
    PROBLEM_MEDIA_TYPE as PROBLEM_MEDIA_TYPE,
    ChainServeError as ChainServeError,
    ConfigurationError as ConfigurationError,
    DiscoveryError as DiscoveryError,
    RemoteError as RemoteError,
    problem_document as problem_document,
    status_phrase as status_phrase,
)
from chainserve.errors.request import (
    BatchTooLargeError as BatchTooLargeError,
    BodyTooLargeError as BodyTooLargeError,
    CrossSiteError as CrossSiteError,
    FeedbackNotEnabledError as FeedbackNotEnabledError,
    FeedbackRefusedError as FeedbackRefusedError,
    IdempotencyKeyReusedError as IdempotencyKeyReusedError,
    InvalidConfigError as InvalidConfigError,
    InvalidConfigHashError as InvalidConfigHashError,
    InvalidCursorError as InvalidCursorError,
    InvalidIdempotencyKeyError as InvalidIdempotencyKeyError,
    InvalidInputError as InvalidInputError,
    InvalidJSONError as InvalidJSONError,
    LangSmithNotFoundError as LangSmithNotFoundError,
    LogExpiredError as LogExpiredError,
    NotAcceptableError as NotAcceptableError,
    OutputNotKeptError as OutputNotKeptError,
    PrincipalRequiredError as PrincipalRequiredError,
    RequestError as RequestError,
    RunIdInUseError as RunIdInUseError,
    RunNotEndedError as RunNotEndedError,
    RunNotFoundError as RunNotFoundError,
    UnsupportedMediaTypeError as UnsupportedMediaTypeError,
)
from chainserve.errors.run import (
    ChainHTTPError as ChainHTTPError,
    LangSmithError as LangSmithError,
    LangSmithTimeoutError as LangSmithTimeoutError,
    LogEvictedError as LogEvictedError,
    OutputNotSerializableError as OutputNotSerializableError,
    RecordedRunError as RecordedRunError,
    RunCancelledError as RunCancelledError,
    RunError as RunError,
    RunFailedError as RunFailedError,
    RunTimeoutError as RunTimeoutError,
    UpstreamAuthenticationError as UpstreamAuthenticationError,
    UpstreamError as UpstreamError,
    UpstreamRateLimitedError as UpstreamRateLimitedError,
    UpstreamTimeoutError as UpstreamTimeoutError,
)
