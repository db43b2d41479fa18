"""Classify failed LLM calls: errors of ollama, openai, groq, httpx and langchain by kind.

failure = classify(error); failure.kind, failure.retry_after_s, failure.text

TRANSIENT failures pass by themselves, PERMANENT ones do not, NO_FAULT ones are not the backend's.
router.py acts on them.
"""

import contextlib
import email.utils
import math
import re
import time
from collections.abc import Mapping

TRANSIENT = ("refused", "timeout", "cut", "server error", "rate limit")
MAYBE_PROMPT = ("timeout", "cut", "server error", "garbled")  # a prompt may cause these
PERMANENT = ("key", "credit", "model")
NO_FAULT = ("refusal", "content filter", "screened", "copies", "off the subject")
LONGEST_RETRY_AFTER_S = 3600.0  # a host that says more (or "inf") is asked again after an hour
CHAIN = 6  # causes of an exception that are looked at

REFUSED_NAMES = {"ConnectError", "ConnectionRefusedError", "gaierror"}
CUT_NAMES = {"RemoteProtocolError", "ReadError", "WriteError", "APIConnectionError", "OSError"}
GARBLED_NAMES = {
    "JSONDecodeError",
    "ValueError",
    "RecursionError",
    "TypeError",
    "KeyError",
    "AttributeError",
    "IndexError",
    "APIResponseValidationError",
}
NO_CREDIT = re.compile(
    r"insufficient.?(quota|credit|fund|balance)|exceeded your current quota|billing|credit balance"
)
NO_MODEL = re.compile(r"model.*(not found|not exist|decommissioned|unknown)|invalid model")
FILTERED = re.compile(r"content.?(filter|management|policy)|safety")


class NoBackendLeft(Exception):
    """Every backend is disabled for the run and waiting cannot help; str names each remedy."""


class Failure(Exception):
    """A failed call: kind (see above), text (one line, without secrets), what may help."""

    def __init__(
        self, kind: str, text: str, retry_after_s: float | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind
        self.text = text
        self.retry_after_s = retry_after_s
        self.remedy = remedy


def classify(error: BaseException) -> Failure:
    """The Failure that an exception means.

    By class name and HTTP status, so that no SDK need be imported.
    """
    chain = _chain(error)
    for link in chain:
        if isinstance(link, Failure):  # an SDK may have wrapped it
            return link
    names = {cls.__name__ for link in chain for cls in type(link).__mro__}
    text = " ".join(str(error).split())[:300] or type(error).__name__
    # ollama appends the status; it stands in front below
    text = re.sub(r" \(status code: -?\d+\)$", "", text)
    if "LengthFinishReasonError" in names:
        return Failure("unusable", text)
    if "ContentFilterFinishReasonError" in names:
        return Failure("content filter", text)
    statuses = [getattr(link, "status_code", None) for link in chain]
    status = next((s for s in statuses if isinstance(s, int)), None)
    if isinstance(error, TimeoutError) or any("Timeout" in name for name in names) or status == 408:
        return Failure("timeout", text)
    if status is not None and 300 <= status < 400:
        return Failure("garbled", f"HTTP {status}: it sends us to another address; list that one")
    if status is not None and 0 < status < 300:
        return Failure("garbled", text)
    if status is not None:
        kind = _kind_of_status(status, text.lower())
        headers = getattr(getattr(error, "response", None), "headers", None)
        shown = f"HTTP {status}: {text}" if status > 0 else text
        return Failure(kind, shown, retry_after(headers))
    if names & REFUSED_NAMES:
        return Failure("refused", text)
    if names & CUT_NAMES:
        return Failure("cut", text)
    kind = "garbled" if names & GARBLED_NAMES else "server error"
    return Failure(kind, f"{type(error).__name__}: {text}")


def _chain(error: BaseException) -> list[BaseException]:
    """The exception and what caused it, outermost first."""
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and len(chain) < CHAIN:
        chain.append(link)
        link = link.__cause__ or link.__context__
    return chain


def _kind_of_status(status: int, text: str) -> str:
    """The kind of an HTTP status of 400 or more; -1 is an error line in Ollama's stream."""
    if status == 402 or (status in (400, 403, 429) and NO_CREDIT.search(text)):
        return "credit"
    if status == 429:
        return "rate limit"
    if status in (401, 403):
        return "key"
    if status == 404 or (status == 400 and NO_MODEL.search(text)):
        return "model"
    if status in (400, 413, 422):
        return "content filter" if FILTERED.search(text) else "unusable"
    return "server error"


def retry_after(headers: Mapping[str, str] | None) -> float | None:
    """Seconds of a Retry-After header (seconds or an HTTP date), at most an hour; None without."""
    word = headers.get("retry-after") if headers else None
    if not word:
        return None
    seconds = math.nan
    try:
        seconds = float(word)
    except ValueError:
        with contextlib.suppress(ValueError):  # the header gives wall-clock time
            seconds = email.utils.parsedate_to_datetime(word).timestamp() - time.time()
    return None if math.isnan(seconds) else min(max(0.0, seconds), LONGEST_RETRY_AFTER_S)
