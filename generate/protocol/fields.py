"""Check types and bounds of everything in a request; what does not fit is refused.

fields = Fields(request_json)
chunk = fields.number("chunk_size", 1, 100_000)
# BadField: "chunk_size must be a whole number from 1 to 100000, not '10'"
"""

import math
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common.console import visible
from generate.protocol.output_root import GENERATED_IMAGES, can_be_dataset

NAME = re.compile(r"[A-Za-z0-9_.:@-]{1,80}").fullmatch
NAME_FORM = "1 to 80 letters, digits or _.:@-"
LEASE = re.compile(r"[0-9]{1,12}-[0-9]{1,15}").fullmatch
SHA256 = re.compile(r"[0-9a-f]{64}").fullmatch
STATES = (
    "loading",
    "compiling",
    "warming_up",
    "waiting_llm",
    "drawing",
    "idle",
    "waiting",
    "checking",
    "publishing",
    "releasing",
)
RELEASED = ("preempted", "walltime", "released", "disk", "folder", "llm", "gpu", "unknown")
CANNOT_START = ("command", "unclear", "memory", "device")
FAILED = ("gpu", "disk", "folder", "llm", "prompt", "image", "unknown")
COUNTED = (
    "reported",
    "usd",
    "granted_usd",
    "reserved_usd",
    "wanted_usd",
    "call_usd",
    "calls",
    "prompt_tokens",
    "completion_tokens",
)
LIMITS = ("budget_usd", "requests_per_minute", "tokens_per_minute", "until_s")
MOST_INDICES = 10**8  # a new data set of so many holds the ledger for half a second
MOST_IMAGES = 100_000
MOST_CHUNK = 100_000
MOST_BACKENDS = (
    512  # LLM backends of a client: their totals, of some 40 values each, come in a beat
)
MOST_RESULTS = 10_000
MOST_SHOWN = 80  # characters of a wrong value in a refusal
Json = dict[str, Any]


class BadField(Exception):
    """The text names the field, what it must be, and (shortened) what it was.

    The names of fields are foreign, too: half a surrogate pair in one can be sent in no answer.
    """

    def __init__(self, text: str) -> None:
        super().__init__(visible(text))


class Fields:
    """The fields of one JSON object. `default=...` means that the field must be there."""

    def __init__(self, values: Any, where: str = "") -> None:
        if not isinstance(values, dict):
            raise BadField(f"{where or 'the body'} must be a JSON object")
        self.values: Json = values
        self.where = where

    def bad(self, name: str, wanted: str, value: Any) -> BadField:
        """The error of a field with a wrong value; `wanted`: what it must be."""
        shown = repr(value)
        if len(shown) >= MOST_SHOWN:
            shown = shown[: MOST_SHOWN - 3] + "…"
        return BadField(f"{self.where}{name} must be {wanted}, not {shown}")

    def number(self, name: str, low: int, high: int, default: Any = ...) -> Any:
        """A whole number from low to high. BadField: it is not."""
        value = self._get(name, default)
        if value is default:
            return value
        if type(value) is not int or not low <= value <= high:
            raise self.bad(name, f"a whole number from {low} to {high}", value)
        return value

    def word(self, name: str, fits: Callable[[str], object], what: str, default: Any = ...) -> Any:
        """A text that fits; what: which texts do, in words."""
        value = self._get(name, default)
        if value is default:
            return value
        if not isinstance(value, str) or not fits(value):
            raise self.bad(name, what, value)
        return value

    def one_of(self, name: str, words: Sequence[str], default: Any = ...) -> Any:
        """One of the words. BadField: another value."""
        value = self._get(name, default)
        if value is not default and value not in words:
            raise self.bad(name, "one of " + ", ".join(words), value)
        return value

    def text(self, name: str, most: int, default: Any = ...) -> Any:
        """A text of at most `most` characters, without NUL; lone surrogates become "?"."""
        value = self._get(name, default)
        if value is default:
            return value
        if not isinstance(value, str) or len(value) > most or "\0" in value:
            raise self.bad(name, f"a text of at most {most} characters", value)
        return value.encode("utf-8", "replace").decode()  # a lone surrogate can be stored nowhere

    def short_id(self, name: str) -> str | None:
        """A short text or a whole number, as text; SLURM's ids come as either."""
        value = self.values.get(name)
        if type(value) is int and 0 <= value < 10**18:
            return str(value)
        text: str | None = self.text(name, 255, None)
        return text

    def objects(self, name: str, most: int) -> list["Fields"]:
        """A list of 1 to `most` objects, each as Fields."""
        value = self._get(name, ...)
        if not isinstance(value, list) or not 1 <= len(value) <= most:
            raise self.bad(name, f"a list of 1 to {most} objects", value)
        return [Fields(item, f"{self.where}{name}[{i}].") for i, item in enumerate(value)]

    def numbers(self, name: str, most: int, low: int, high: int, default: Any = ...) -> Any:
        """A list of at most `most` whole numbers from low to high."""
        value = self._get(name, default)
        if value is default:
            return value
        fits = isinstance(value, list) and len(value) <= most
        if not fits or not all(type(n) is int and low <= n <= high for n in value):
            wanted = f"a list of at most {most} whole numbers from {low} to {high}"
            raise self.bad(name, wanted, value)
        return value

    def leases(self, name: str, most: int) -> list[str]:
        """A list of at most `most` names of leases; [] if absent."""
        value: Any = self.values.get(name, [])
        fits = isinstance(value, list) and len(value) <= most
        if not fits or not all(isinstance(n, str) and LEASE(n) for n in value):
            raise self.bad(name, f"a list of at most {most} leases like 3-17", value)
        return list(value)

    def truth(self, name: str) -> bool:
        """True or false; false if absent."""
        value = self.values.get(name)
        if value is not None and not isinstance(value, bool):
            raise self.bad(name, "true or false", value)
        return bool(value)

    def real(self, name: str) -> float | None:
        """A finite number up to a million; None if absent."""
        value = self.values.get(name)
        if value is None:
            return None
        if type(value) not in (int, float) or abs(value) > 1e6 or not math.isfinite(value):
            raise self.bad(name, "a finite number", value)
        return float(value)

    def dollars(self, name: str) -> float | None:
        """An amount in USD from 0; None if absent."""
        value = self.values.get(name)
        if value is not None and not (type(value) in (int, float) and 0 <= value <= 1e9):
            raise self.bad(name, "an amount in USD from 0", value)
        return value

    def object(self, name: str, default: Any = ...) -> Any:
        """An object, as Fields."""
        value = self._get(name, default)
        return value if value is default else Fields(value, f"{self.where}{name}.")

    def tree(self, name: str, most_values: int = 2000) -> Json | None:
        """A JSON object of bounded size whose numbers are finite, as it came; None if absent.

        The LLMs' limits and totals come in such objects.
        """
        value = self._get(name, None)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.bad(name, "an object", value)
        seen = 0
        stack: list[Any] = [value]
        while stack:
            item = stack.pop()
            seen += 1
            if isinstance(item, dict):
                stack += [*item.keys(), *item.values()]
            elif isinstance(item, list):
                stack += item
            if seen > most_values or _too_large(item):
                wanted = f"an object of at most {most_values} finite numbers and short texts"
                raise self.bad(name, wanted, value)
        return value

    def _get(self, name: str, default: Any) -> Any:
        value = self.values.get(name, default)
        if value is ...:
            raise BadField(f"{self.where}{name} is missing")
        return default if value is None and default is not ... else value


def _too_large(item: Any) -> bool:
    if isinstance(item, str):
        return len(item) > 2000 or any("\ud800" <= character <= "\udfff" for character in item)
    if isinstance(item, int):
        return abs(item) > 1e18
    return isinstance(item, float) and not math.isfinite(item)


def client_id(fields: Fields) -> str:
    return str(fields.word("client_id", NAME, NAME_FORM))


def output_dir(fields: Fields, output_root: Path) -> str:
    """Name of the data set folder that the request names.

    It must be <output root>/generated_images/<name>, by the path as written and with no symbolic
    link below the output root.
    """
    text = fields.text("output_dir", 4096)
    base = output_root / GENERATED_IMAGES
    path = Path(text)
    plain = path.is_absolute() and ".." not in path.parts and can_be_dataset(path.name)
    if not plain or os.path.realpath(path.parent) != os.path.realpath(base):
        raise fields.bad("output_dir", f"a folder directly in {base}", text)
    for folder in (base, path):
        if folder.is_symlink():
            raise BadField(
                f"output_dir: {folder} is a link, and none is followed there; for another disk "
                "give --output_root"
            )
    return path.name


def llm(fields: Fields, name: str) -> Json | None:
    """Prompter.limits() or Prompter.use() as it came, but for nulls; None if absent.

    They are added up over all clients, so one wrong type would stop the status page.
    """
    given = fields.tree(name, 64 * MOST_BACKENDS)
    if given is None:
        return None
    given = {key: value for key, value in given.items() if value is not None}
    backends = given.get("backends", {})
    parts = [given, *(backends.values() if isinstance(backends, dict) else [None])]
    if not all(counts_can_be_added(part) for part in parts):
        wanted = "what the client's LLM side says (numbers, and backends as objects)"
        raise fields.bad(name, wanted, given)
    return given


def counts_can_be_added(part: Any) -> bool:
    """Whether all numbers of one backend (or of all together) are numbers, its texts are texts."""
    if not isinstance(part, dict):
        return False
    if not all(isinstance(part.get(name), str | None) for name in ("state", "because")):
        return False
    failures = part.get("failures") or {}
    seconds = part.get("seconds") or []
    if not isinstance(failures, dict) or not isinstance(seconds, list):
        return False
    numbers = [*failures.values(), *seconds, *(part[key] for key in COUNTED if key in part)]
    numbers += [part[key] for key in LIMITS if part.get(key) is not None]
    return all(type(n) in (int, float) and math.isfinite(n) for n in numbers)


def worker(fields: Fields) -> Json:
    """{"host", "gpu", "array_job", "task", "restart", "log", "submission"}; None: not given."""
    given = fields.object("worker", None) or Fields({})
    names = ("host", "gpu", "array_job", "task", "log", "submission")
    texts = {name: given.short_id(name) for name in names}
    return texts | {"restart": given.number("restart", 0, 10**6, None)}


def _drawing(given: Fields) -> dict[str, Callable[[str], object]]:
    """How images are generated: fields that older clients do not send."""
    return {
        "model_commit": lambda name: given.text(name, 100, None),
        "scheduler": lambda name: given.text(name, 100, None),
        "libraries": lambda name: given.text(name, 1000, None),
        "version": lambda name: given.text(name, 100, None),
        "lora": lambda name: given.text(name, 4096, None),
        "sizes": lambda name: given.text(name, 4096, None),
        "images_per_text": lambda name: given.number(name, 1, MOST_IMAGES, None),
        "truncated": lambda name: given.text(name, 40, None),
        "negative_prompt": lambda name: given.text(name, 4096, None),
        "jpeg_quality": lambda name: given.number(name, 1, 100, None),
        "dtype": lambda name: given.text(name, 40, None),
        "without_t5": given.truth,
        "quantize": lambda name: given.text(name, 100, None),
        "quantize_args": lambda name: given.text(name, 4096, None),
        "attention": lambda name: given.text(name, 100, None),
        "compiled": given.truth,
        "scores": lambda name: given.text(name, 4096, None),
        "accept": lambda name: given.text(name, 2000, None),
        "max_tries": lambda name: given.number(name, 1, 10_000, None),
    }


def definition(fields: Fields) -> Json | None:
    """The data set definition of a request, checked field by field.

    None where the request brings none (the published form).
    """
    given = fields.object("dataset", None)
    if given is None:
        return None
    wanted = {
        "name": given.word("name", can_be_dataset, "the name of a folder"),
        "prompts_file": given.text("prompts_file", 4096, None),
        "prompts_sha256": given.word("prompts_sha256", SHA256, "64 hexadecimal digits", None),
        "total": given.number("total", 1, MOST_INDICES),
        "images_per_prompt": given.number("images_per_prompt", 1, MOST_IMAGES),
        "order_seed": given.number("order_seed", 0, 2**63 - 1, None),
        "run_seed": given.number("run_seed", 0, 2**63 - 1, None),
        "model": given.text("model", 1000, None),
        "revision": given.text("revision", 1000, None),
        "height": given.number("height", 1, 65536, None),
        "width": given.number("width", 1, 65536, None),
        "num_inference_steps": given.number("num_inference_steps", 1, 100_000, None),
        "guidance_scale": given.real("guidance_scale"),
        "augment_prompts": given.truth("augment_prompts"),
    } | {name: check(name) for name, check in _drawing(given).items() if name in given.values}
    if given.truth("extend"):
        wanted |= {
            "extend": True,
            "prefix_total": given.number("prefix_total", 1, MOST_INDICES),
            "prefix_sha256": given.word("prefix_sha256", SHA256, "64 hexadecimal digits", None),
        }
    unknown = given.values.keys() - wanted.keys() - {"extend"}
    if unknown:
        raise BadField(f"dataset.{min(map(str, unknown))[:80]} is not a field of a definition")
    return wanted
