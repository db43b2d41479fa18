"""Types and bounds of everything that comes over the wire: a request either is of the known form, or is refused naming the field.

fields = Fields(request_json)
chunk = fields.number("chunk_size", 1, 100_000)        # BadField: "chunk_size must be a whole number from 1 to 100000, not '10'"
"""

import math
import re
from pathlib import Path

NAME = re.compile(r"[A-Za-z0-9_.:@-]{1,80}")
LEASE = re.compile(r"[0-9]{1,12}-[0-9]{1,15}")
FOLDER_NAME = re.compile(r"[^\0-\x1f/.][^\0-\x1f/]{0,199}")
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
RELEASED = ("preempted", "walltime", "released", "disk", "llm", "gpu", "unknown")
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
FAILED = ("gpu", "disk", "llm", "prompt", "image", "unknown")
MOST_INDICES, MOST_IMAGES, MOST_CHUNK, MOST_RESULTS = 10**9, 100_000, 100_000, 10_000


class BadField(Exception):
    """The text names the field, what it must be, and (shortened) what it was."""


class Fields:
    def __init__(self, values, where=""):
        if not isinstance(values, dict):
            raise BadField(f"{where or 'the body'} must be a JSON object")
        self.values, self.where = values, where

    def _bad(self, name, wanted, value):
        shown = repr(value)
        return BadField(
            f"{self.where}{name} must be {wanted}, not {shown if len(shown) < 80 else shown[:77] + '…'}"
        )

    def number(self, name, low, high, default=...):
        value = self._get(name, default)
        if value is default:
            return value
        if type(value) is not int or not low <= value <= high:
            raise self._bad(name, f"a whole number from {low} to {high}", value)
        return value

    def word(self, name, pattern, what, default=...):
        value = self._get(name, default)
        if value is default:
            return value
        if not isinstance(value, str) or not pattern.fullmatch(value):
            raise self._bad(name, what, value)
        return value

    def one_of(self, name, words, default=...):
        value = self._get(name, default)
        if value is not default and value not in words:
            raise self._bad(name, "one of " + ", ".join(words), value)
        return value

    def text(self, name, most, default=...):
        value = self._get(name, default)
        if value is default:
            return value
        if not isinstance(value, str) or len(value) > most or "\0" in value:
            raise self._bad(name, f"a text of at most {most} characters", value)
        return value.encode("utf-8", "replace").decode()  # a lone surrogate can be stored nowhere

    def objects(self, name, most):
        value = self._get(name, ...)
        if not isinstance(value, list) or not 1 <= len(value) <= most:
            raise self._bad(name, f"a list of 1 to {most} objects", value)
        return [Fields(item, f"{self.where}{name}[{i}].") for i, item in enumerate(value)]

    def numbers(self, name, most, low, high, default=...):
        value = self._get(name, default)
        if value is default:
            return value
        if (
            not isinstance(value, list)
            or len(value) > most
            or not all(type(n) is int and low <= n <= high for n in value)
        ):
            raise self._bad(
                name, f"a list of at most {most} whole numbers from {low} to {high}", value
            )
        return value

    def object(self, name, default=...):
        value = self._get(name, default)
        return value if value is default else Fields(value, f"{self.where}{name}.")

    def tree(self, name, most_values=2000):
        """A JSON object of bounded size whose numbers are finite (the LLMs' limits and totals), as it came; None if absent."""
        value = self._get(name, None)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self._bad(name, "an object", value)
        seen, stack = 0, [value]
        while stack:
            item = stack.pop()
            seen += 1
            children = (
                [*item.keys(), *item.values()]
                if isinstance(item, dict)
                else item
                if isinstance(item, list)
                else []
            )
            stack.extend(children)
            too_large = (
                isinstance(item, str)
                and len(item) > 2000
                or isinstance(item, int)
                and abs(item) > 1e18
            )
            if (
                seen > most_values
                or too_large
                or isinstance(item, float)
                and not math.isfinite(item)
            ):
                raise self._bad(
                    name,
                    f"an object of at most {most_values} finite numbers and short texts",
                    value,
                )
        return value

    def _get(self, name, default):
        value = self.values.get(name, default)
        if value is ...:
            raise BadField(f"{self.where}{name} is missing")
        return default if value is None and default is not ... else value


def output_dir(fields, output_root):
    """Name of the data set folder that the request names. It must be <output root>/generated_images/<name>, by the path as written and with
    no symbolic link below the output root."""
    text = fields.text("output_dir", 4096)
    base = output_root / "generated_images"
    path = Path(text)
    wanted = f"a folder directly in {base}"
    if not path.is_absolute() or ".." in path.parts or not FOLDER_NAME.fullmatch(path.name):
        raise fields._bad("output_dir", wanted, text)
    if path.is_symlink() or base.is_symlink() or path.parent.resolve() != base.resolve():
        raise fields._bad("output_dir", wanted, text)
    return path.name


def llm(fields, name):
    """Prompter.limits() or Prompter.use() as it came, but for nulls; None if absent. Sums over all clients are made of it, so that one
    wrong type would stop the status page."""
    given = fields.tree(name)
    if given is None:
        return None
    given = {key: value for key, value in given.items() if value is not None}
    backends = given.get("backends", {})
    for part in (given, *(backends.values() if isinstance(backends, dict) else [None])):
        failures, seconds = (
            (part.get("failures") or {}, part.get("seconds") or [])
            if isinstance(part, dict)
            else (None, None)
        )
        numbers = [None]
        if isinstance(failures, dict) and isinstance(seconds, list):
            numbers = [*failures.values(), *seconds, *(part[key] for key in COUNTED if key in part)]
            numbers += [part[key] for key in LIMITS if part.get(key) is not None]
        if not all(type(n) in (int, float) for n in numbers) or not isinstance(
            part.get("state"), str | None
        ):
            raise fields._bad(
                name, "what the client's LLM side says (numbers, and backends as objects)", given
            )
    return given


def worker(fields):
    """{"host", "gpu", "array_job", "task", "restart", "log"}, each None where not given."""
    given = fields.object("worker", None)
    if given is None:
        return {
            "host": None,
            "gpu": None,
            "array_job": None,
            "task": None,
            "restart": None,
            "log": None,
        }
    texts = {name: _id(given, name) for name in ("host", "gpu", "array_job", "task", "log")}
    return texts | {"restart": given.number("restart", 0, 10**6, None)}


def _id(fields, name):
    """A short text or a whole number, as text; SLURM's ids come as either."""
    value = fields.values.get(name)
    if type(value) is int and 0 <= value < 10**18:
        return str(value)
    return fields.text(name, 255, None)


slurm_job_id = _id


def definition(fields):
    """The dataset definition of a request, checked field by field; None where the request brings none (the published form)."""
    given = fields.object("dataset", None)
    if given is None:
        return None
    sha = re.compile(r"[0-9a-f]{64}")
    wanted = {
        "name": given.word("name", FOLDER_NAME, "the name of a folder"),
        "prompts_file": given.text("prompts_file", 4096, None),
        "prompts_sha256": given.word("prompts_sha256", sha, "64 hexadecimal digits", None),
        "total": given.number("total", 1, MOST_INDICES),
        "images_per_prompt": given.number("images_per_prompt", 1, MOST_IMAGES),
        "order_seed": given.number("order_seed", 0, 2**63 - 1, None),
        "run_seed": given.number("run_seed", 0, 2**63 - 1, None),
        "model": given.text("model", 1000, None),
        "revision": given.text("revision", 1000, None),
        "height": given.number("height", 1, 65536, None),
        "width": given.number("width", 1, 65536, None),
        "num_inference_steps": given.number("num_inference_steps", 1, 100_000, None),
        "guidance_scale": _real(given, "guidance_scale"),
        "augment_prompts": truth(given, "augment_prompts"),
    }
    if truth(given, "extend"):
        wanted |= {
            "extend": True,
            "prefix_total": given.number("prefix_total", 1, MOST_INDICES),
            "prefix_sha256": given.word("prefix_sha256", sha, "64 hexadecimal digits", None),
        }
    unknown = given.values.keys() - wanted.keys() - {"extend"}
    if unknown:
        raise BadField(f"dataset.{min(map(str, unknown))[:80]} is not a field of a definition")
    return wanted


def _real(fields, name):
    value = fields.values.get(name)
    if value is None:
        return None
    if type(value) not in (int, float) or not math.isfinite(value) or abs(value) > 1e6:
        raise fields._bad(name, "a finite number", value)
    return float(value)


def truth(fields, name):
    value = fields.values.get(name)
    if value is not None and not isinstance(value, bool):
        raise fields._bad(name, "true or false", value)
    return bool(value)
