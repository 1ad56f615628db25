"""What a request that is not answered gets: a status, and a sentence that repeats nothing of the request."""

from collections.abc import Mapping

from starlette.responses import JSONResponse, Response

_CODES = {
    401: "UNAUTHENTICATED",
    404: "ENDPOINT_NOT_FOUND",
    413: "REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "TEMPORARILY_UNAVAILABLE",
}
"""As MLflow names them; BAD_REQUEST for others."""
_REQUEST_TIMEOUT = 408


class RefusedRequest(Exception):
    """A request that is answered with `status`; the message says what is wrong with it."""

    def __init__(self, message: str, status: int = 400, *, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


def answer(path: str, refusal: RefusedRequest, headers: Mapping[str, str] | None = None) -> Response:
    """Returns the answer to a request for `path` that is refused, as Open Inference has it or as MLflow does."""
    found = dict(headers or {})
    if refusal.retry_after is not None:
        found["retry-after"] = str(refusal.retry_after)
    if refusal.status == _REQUEST_TIMEOUT:
        found["connection"] = "close"
    if path.startswith("/v2"):
        return JSONResponse({"error": str(refusal)}, refusal.status, found)
    code = _CODES.get(refusal.status, "BAD_REQUEST")
    return JSONResponse({"error_code": code, "message": str(refusal)}, refusal.status, found)
