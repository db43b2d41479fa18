"""Parse an LLM's answer into texts: reasoning and labels removed, JSON or a list of lines read.

texts_of('<think>hm</think>```json\\n{"variations": ["a fox", "an owl"]}```')  # ["a fox", "an owl"]

Whether a text can be used is for variations.py to say. Everything here is linear in the answer's
length, which is cut at LONGEST.
"""

import html
import re
import unicodedata
from typing import Any

from generate.llms.loose_json import Found, values

LONGEST = 1_000_000  # characters of an answer that are read
OPENED = r"<(?:think|thinking|thought|reasoning|reflection|scratchpad)>|\[THINK\]|◁think▷"
CLOSED = r"</(?:think|thinking|thought|reasoning|reflection|scratchpad)>|\[/THINK\]|◁/think▷"
REASONING = re.compile(f"(?P<opened>{OPENED})|(?P<closed>{CLOSED})", re.I)
CHANNEL = re.compile(
    r"<\|channel\|>\s{0,9}(\w{1,30})[^<]{0,200}(?:<\|constrain\|>[^<]{0,50})?<\|message\|>"
)
SPECIAL_TOKEN = re.compile(r"<\|[\w-]{1,40}\|>")
# Names of the field with the texts, best first; we ask for "variations".
LISTS = (
    "variations",
    "variation",
    "captions",
    "prompts",
    "rewrites",
    "variants",
    "arguments",
    "parameters",
    "response",
    "answer",
    "output",
    "result",
    "results",
    "items",
    "data",
)
TEXTS = ("text", "caption", "prompt", "variation", "rewrite", "description", "content")
# Fields beside the texts in an object, which are no texts themselves.
ABOUT = {
    "$schema",
    "count",
    "error",
    "explanation",
    "id",
    "language",
    "message",
    "model",
    "name",
    "note",
    "notes",
    "original",
    "original_prompt",
    "properties",
    "reasoning",
    "refusal",
    "role",
    "style",
    "thinking",
    "thought",
    "thoughts",
    "title",
    "type",
}
DEEPEST = 12  # wrappers within wrappers
NUMBER = re.compile(r"\s*(?:[(\[]?(\d{1,3})(?:[.):\]]+|\s-)\s+|[-*•–>]+\s+)")  # noqa: RUF001
# a colour or another order to a terminal: ESC [ 31 m
TERMINAL = re.compile("\x1b\\[[0-9;?]{0,20}[ -/]?[@-~]")
# Both at the beginning alone: looked for anywhere, a run of n blanks takes n * n steps.
LABELS = "(?:variation|caption|rewrite|prompt|option|version)"
LABEL = re.compile(
    rf"\A\s*{LABELS}\s*(?:#?\d{{1,3}}\s*[:.)-]|#?[a-z]?\s*:)\s+"
    rf"|\A\s*(\*\*|__){LABELS}\s*#?(?:\d{{1,3}}|[a-z])?\s*[:.)-]?\1[:.)-]?\s+",
    re.I,
)
EMPHASIS = re.compile(r"(\*\*|__|\*|_|`)(.+)\1")
NUMBER_IN_BOLD = re.compile(r"\A\s*\*\*(\d{1,3}[.)]?)\*\*[.):]?\s+")
QUOTES = (('"', '"'), ("“", "”"), ("'", "'"), ("«", "»"), ("‘", "’"))  # noqa: RUF001


def texts_of(answer: str, cut: bool = False) -> list[str]:
    """The texts, cleaned, in their order; cut: the provider says that the answer was cut off."""
    answer = without_reasoning(answer[:LONGEST])
    found = values(answer)
    chosen = _chosen(found, answer)
    if chosen or answer.lstrip()[:1] == "{":
        texts = [text for each in chosen for text in _strings(each.value, 0)]
        texts = [line for text in texts for line in _listed(text)]
        return _cleaned(texts)
    return _cleaned(_lines(answer, cut))


def without_reasoning(answer: str) -> str:
    """The answer without the model's reasoning; the whole answer if the end tag is missing."""
    channels = list(CHANNEL.finditer(answer))
    if channels:
        last = channels[-1]
        answer = "" if last[1].lower() == "analysis" else answer[last.end() :]
    kept: list[str] = []
    depth = 0
    place = 0
    for tag in REASONING.finditer(answer):
        if depth == 0:
            kept.append(answer[place : tag.start()])
        if tag["opened"]:
            depth += 1
        elif depth:
            depth -= 1
        else:  # the chat template held the opening one
            kept = []
        place = tag.end()
    if depth == 0:
        kept.append(answer[place:])
    return SPECIAL_TOKEN.sub("\n", "".join(kept))


# ---------------------------------------------------------------- JSON


def _chosen(found: list[Found], answer: str) -> list[Found]:
    """The values to take: those that follow the last one without a word in between."""
    full = [each for each in found if _has_text(each.value)]
    named = [each for each in full if isinstance(each.value, dict) and _is_named(each.value)]
    full = named or full
    chosen = full[-1:]
    for each in reversed(full[:-1]):
        if re.search(r"\w", answer[each.end : chosen[0].start]):
            break
        chosen.insert(0, each)
    return chosen


def _is_named(fields: dict[str, Any]) -> bool:
    return any(key.strip().lower() in LISTS for key in fields)


def _has_text(value: Any) -> bool:
    return bool(_strings(value, 0))


def _strings(value: Any, depth: int) -> list[str]:
    """The texts of a value, whatever it is wrapped in."""
    if depth > DEEPEST:
        return []
    if isinstance(value, str):
        inner = values(value) if value.lstrip()[:1] in ("{", "[") else []
        unwrapped = _strings(inner[0].value, depth + 1) if inner else []
        return unwrapped or [value]
    if isinstance(value, list):
        return [text for item in value for text in _strings(item, depth + 1)]
    if isinstance(value, dict):
        return _strings_of_object({key.strip().lower(): v for key, v in value.items()}, depth)
    return []


def _strings_of_object(fields: dict[str, Any], depth: int) -> list[str]:
    for key in LISTS:
        if fields.get(key):
            return _strings(fields[key], depth + 1)
    for key in TEXTS:
        if isinstance(fields.get(key), str):
            return _strings(fields[key], depth + 1)
    rest = [value for key, value in fields.items() if key not in ABOUT]
    nested = [value for value in rest if isinstance(value, dict | list)]
    return [text for value in nested or rest for text in _strings(value, depth + 1)]


# ---------------------------------------------------------------- lines


def _listed(text: str) -> list[str]:
    """A string that is a numbered list of its own, as its lines; else the string."""
    lines = [line for line in text.splitlines() if line.strip()]
    numbered = len(lines) > 1 and all(NUMBER.match(line) or LABEL.match(line) for line in lines)
    return lines if numbered else [text]


def _lines(answer: str, cut: bool) -> list[str]:
    """The listed lines, or where there is no list, all lines that could be a text."""
    lines = [line.strip() for line in answer.splitlines()]
    lines = [NUMBER_IN_BOLD.sub(r"\1. ", line) for line in lines if line]
    if cut:
        lines = lines[:-1]
    listed = [line for line in lines if NUMBER.match(line) or LABEL.match(line)]
    if len(listed) > 1 or (listed and len(lines) == 1):
        return listed
    return [line for line in lines if not line.endswith(":")]


def _cleaned(texts: list[str]) -> list[str]:
    """The texts without numbers that count them, labels, quotes and emphasis."""
    numbers = [NUMBER.match(text) for text in texts]
    counted = [int(match[1]) for match in numbers if match and match[1]]
    first = counted[0] if counted else 0
    in_order = counted == list(range(first, first + len(counted))) and first in (0, 1)
    cleaned: list[str] = []
    for text, number in zip(texts, numbers, strict=True):
        counts = number and (not number[1] or (in_order and len(counted) > len(texts) / 2))
        if number and counts:
            text = text[number.end() :]
        cleaned.append(clean(text))
    return [text for text in cleaned if text]


def clean(text: str) -> str:
    """The text on one line without a label, quotes around it, emphasis and control characters."""
    text = html.unescape(text.encode("utf-8", "ignore").decode("utf-8"))
    text = TERMINAL.sub("", text)
    text = unicodedata.normalize("NFC", text).replace("\u200b", "")
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    for _ in range(3):
        text = LABEL.sub("", text, count=1).strip()
        text = text.removesuffix(",").strip()
        if len(text) > 1 and (text[0], text[-1]) in QUOTES:
            text = text[1:-1].strip()
        emphasis = EMPHASIS.fullmatch(text)
        text = emphasis[2].strip() if emphasis else text
    return text
