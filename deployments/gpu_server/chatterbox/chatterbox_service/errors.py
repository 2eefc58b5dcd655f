"""What a request can be answered instead of speech. Every message is one line that names the fault, and the limit if there is one."""

from __future__ import annotations

from typing import Any


class ServiceError(Exception):
    """Base of them all.

    To add one: its status, and a code that clients may rely on.
    """

    status = 500
    code = "internal_error"

    def __init__(self, message: str, retry_after: int | None = None) -> None:
        super().__init__(" ".join(message.split()))
        self.retry_after = retry_after  # seconds; None where waiting alone helps nobody

    def body(self) -> dict[str, Any]:
        return {"error": {"code": self.code, "message": str(self)}}

    def headers(self) -> dict[str, str]:
        return {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}


class BadRequest(ServiceError):
    status, code = 422, "invalid_request"


class EmptyText(ServiceError):
    status, code = 422, "empty_text"


class TextTooLong(ServiceError):
    status, code = 422, "text_too_long"


class UnknownLanguage(ServiceError):
    status, code = 422, "unsupported_language"


class BadReference(ServiceError):
    status, code = 422, "invalid_reference"


class BodyTooLarge(ServiceError):
    status, code = 413, "too_large"

    def headers(self) -> dict[str, str]:
        return {"Connection": "close"}  # else the server would take in all the rest, to find where the next request begins


class UnknownVoice(ServiceError):
    status, code = 404, "unknown_voice"


class UnknownReference(ServiceError):
    status, code = 404, "unknown_reference"


class Busy(ServiceError):
    status, code = 503, "busy"


class NotLoaded(ServiceError):
    status, code = 503, "model_loading"


class ModelFailed(ServiceError):
    """The model can't be used until the service is started again."""

    status, code = 503, "model_failed"


class OutOfMemory(ServiceError):
    status, code = 503, "out_of_memory"


class NoSpeech(ServiceError):
    """The model gave no sound for this text; another seed may."""

    status, code = 500, "no_speech"
