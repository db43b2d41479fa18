"""What a failed call to an LLM means: the exceptions of ollama, openai, groq, httpx and langchain, sorted into a dozen kinds.

    failure = classify(error); failure.kind, failure.retry_after_s, failure.text

WEATHER passes by itself, OFF does not, UNBLAMED is nobody's fault; llm_router.py says what is done about each.
"""

import email.utils
import re
import time

WEATHER = ("refused", "timeout", "cut", "server error", "rate limit")
BY_PROMPT = ("timeout", "cut", "server error", "garbled")  # weather that a prompt may have made
OFF = ("key", "credit", "model")
UNBLAMED = ("refusal", "content filter", "copies")


class Failure(Exception):
    """What came of a call: kind (see above), retry_after_s or None, text (one line, without secrets)."""

    def __init__(self, kind, text, retry_after_s=None):
        super().__init__(f"{kind}: {text}")
        self.kind, self.text, self.retry_after_s = kind, text, retry_after_s


def classify(error):
    """Exception of ollama, openai, groq, httpx, langchain or asyncio -> Failure. By name and status, so that no SDK need be imported."""
    if isinstance(error, Failure):
        return error
    chain, link = [], error
    while link is not None and len(chain) < 6:
        chain.append(link)
        link = link.__cause__ or link.__context__
    names = {cls.__name__ for link in chain for cls in type(link).__mro__}
    text = " ".join(str(error).split())[:300] or type(error).__name__
    text = re.sub(
        r" \(status code: -?\d+\)$", "", text
    )  # ollama's own way of saying it; it stands in front below
    if "LengthFinishReasonError" in names or "ContentFilterFinishReasonError" in names:
        return Failure("unusable" if "LengthFinishReasonError" in names else "content filter", text)
    status = next(
        (s for s in (getattr(link, "status_code", None) for link in chain) if isinstance(s, int)),
        None,
    )
    response = getattr(error, "response", None)
    retry_after_s = retry_after(getattr(response, "headers", None))
    if isinstance(error, TimeoutError) or any("Timeout" in name for name in names) or status == 408:
        return Failure("timeout", text)
    if status is not None and 0 < status < 400:
        return Failure("garbled", text)
    if status is not None:
        return Failure(
            _kind_of_status(status, text.lower()),
            f"HTTP {status}: {text}" if status > 0 else text,
            retry_after_s,
        )
    if names & {"ConnectError", "ConnectionRefusedError", "gaierror"}:
        return Failure("refused", text)
    if names & {"RemoteProtocolError", "ReadError", "WriteError", "APIConnectionError", "OSError"}:
        return Failure("cut", text)
    if names & {
        "JSONDecodeError",
        "ValueError",
        "TypeError",
        "KeyError",
        "AttributeError",
        "IndexError",
        "APIResponseValidationError",
    }:
        return Failure("garbled", f"{type(error).__name__}: {text}")
    return Failure("server error", f"{type(error).__name__}: {text}")


def _kind_of_status(status, text):
    if status in (402,) or (
        status in (400, 403, 429)
        and re.search(
            r"insufficient.?(quota|credit|fund|balance)|exceeded your current quota|billing|credit balance",
            text,
        )
    ):
        return "credit"
    if status == 429:
        return "rate limit"
    if status in (401, 403):
        return "key"
    if status == 404 or (
        status == 400
        and re.search(r"model.*(not found|not exist|decommissioned|unknown)|invalid model", text)
    ):
        return "model"
    if status in (400, 413, 422):
        return (
            "content filter"
            if re.search(r"content.?(filter|management|policy)|safety", text)
            else "unusable"
        )
    return "server error"  # 5xx; -1: an error line in Ollama's stream


def retry_after(headers):
    """Seconds of a Retry-After header (seconds or an HTTP date), None where there is none."""
    word = headers.get("retry-after") if headers else None
    if not word:
        return None
    try:
        return max(0.0, float(word))
    except ValueError:
        pass
    try:
        return max(
            0.0, email.utils.parsedate_to_datetime(word).timestamp() - time.time()
        )  # the header gives wall-clock time
    except ValueError:
        return None
