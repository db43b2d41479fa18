"""Screen every text that becomes an image: a prompt, a variation, an LLM's answer.

    screen = Screen.beside(Path("prompts/combined.json"))    # the rules it was combined with
    verdict = screen.judge("a 15 year old in lingerie")
    verdict.reason             # "sexual content and an age word"
    verdict.rule               # "15 year old + lingerie"
    screen.judge_variation("ein Hund im Schnee", original="a dog in the snow").reason
                               # "not English"

combine.py screens prompts and their variations, generate_images.py a prompts file when a run
begins, the LLM client every answer. Sexual content with an age word for minors is refused whatever
the rules are. combine.py writes its rules and an index of the validation set (hashes and vectors,
no text) beside the combined file, as combined.screening.npz.
"""

import errno
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common import safety
from common.command_line import UserError
from common.files import write_whole
from common.json_form import COUNT, SHA256, in_form
from common.json_text import parse_json
from common.language import foreign
from common.subjects import find_gibberish, find_no_subject

if TYPE_CHECKING:
    from common.validation_set import Match, ValidationSet

FORMAT = 1
ENDING = ".screening.npz"

MINORS = "sexual content and an age word"
SEXUAL = "sexual content"
HATE = "hate"
PROFANITY = "profanity"
NOT_ENGLISH = "not English"
VALIDATION_SET = "validation set"

# Placeholders: "a {breed} in a hat", "[subject] at night", "lorem ipsum dolor". NovelAI's
# {emphasis} and {{emphasis}} are none: a comma or the end follows, and no article stands before.
PLACEHOLDER = re.compile(
    r"\b(?:a|an|the|of|with|in|on|by|and) [{<][a-z][a-z_ -]{1,30}[}>]"
    r"|[\[<{](?:your|insert|subject|object|noun|adjective|verb|name|place|artist|style|animal"
    r"|character|color|colour|placeholder|prompt|text|location)\b[^\]>}]{0,40}[\]>}]"
    r"|\b__[a-z][\w/-]{0,40}__|\$\{?[A-Z_]{3,30}\b|\blorem ipsum dolor sit amet\b[^a-z]*$",
    re.I,
)
PLACEHOLDER_SIGN = re.compile(r"[{<\[$]|__|lorem", re.I)  # one of these is in each of them
NOTHING = re.compile(
    r"\W*(?:null|none|nan|nil|undefined|n ?/ ?a|todo|tbd|tba|placeholder|string|untitled|empty"
    r"|(?:first|second|third|fourth|fifth|another|next|your|the|this|new|example|sample|rewritten)?"
    r" ?(?:variation|caption|rewrite|rephrasing|prompt|text|description|item|output|response"
    r"|answer)(?: (?:text|here|number|goes here))*(?: ?#?\d+)?)\W*",
    re.I,
)
# What no caption holds and a terminal obeys: C0 and C1 but for blanks and line ends, and the signs
# that turn the direction of what follows.
CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u202a-\u202e\u2066-\u2069]")
LOOP_WORDS = 8  # words of a phrase and its repeats (four times and more), together
LOOP_TIMES = 4
LOOP_PHRASE = 12  # words, the longest phrase that is looked for
FEW_WORDS = 0.3  # of a text of 16 words and more are different ones
LETTER_LOOP_TIMES = 12
LETTER_LOOP = re.compile(rf"([^\W_]{{1,6}}?)\1{{{LETTER_LOOP_TIMES - 1},}}")


@dataclass(frozen=True)
class Rules:
    """What is refused; profanity, sexual, hate: "drop", "flag" or "keep"."""

    language: str = "en"  # or "any"
    min_words: int = 3
    max_words: int = 200
    min_chars: int = 8
    max_chars: int = 1000
    profanity: str = "flag"
    sexual: str = "drop"
    hate: str = "drop"
    needs_subject: bool = True  # names, sites and style words alone are no prompt


ACTION = re.compile("drop|flag|keep")
RULES = {
    "language?": re.compile("en|any"),
    "min_words?": COUNT,
    "max_words?": COUNT,
    "min_chars?": COUNT,
    "max_chars?": COUNT,
    "profanity?": ACTION,
    "sexual?": ACTION,
    "hate?": ACTION,
    "needs_subject?": bool,
}

# A prompts file that combine.py did not write is the user's own: any length, any language.
RULES_OF_A_RUN = Rules(
    language="any",
    min_words=1,
    max_words=1_000,
    min_chars=1,
    max_chars=10_000,
    profanity="keep",
    needs_subject=False,
)


@dataclass(frozen=True)
class Verdict:
    """Why a text is refused (reason "": it stays), by which rule, and its flags.

    row, similarity: which prompt of the validation set it is like, where that is the reason.
    """

    reason: str = ""
    rule: str = ""
    flags: tuple[str, ...] = ()
    row: int | None = None
    similarity: float = 0.0


class Screen:
    """The rules, and a validation set if one was given."""

    def __init__(
        self,
        rules: Rules = RULES_OF_A_RUN,
        validation: "ValidationSet | None" = None,
        covers: str = "",
    ) -> None:
        self.rules = rules
        self.validation = validation
        self.covers = covers  # sha256 of the prompts file that went through all this already

    def judge(self, text: str) -> Verdict:
        """The verdict on one prompt."""
        return self.judge_all([text])[0]

    def judge_all(self, texts: Sequence[str]) -> list[Verdict]:
        """One verdict for each text. Many at once cost less."""
        return [
            _like_validation(match) if match else _judge(text, self.rules)
            for text, match in zip(texts, self._matches(texts), strict=True)
        ]

    def judge_variation(self, text: str, original: str) -> Verdict:
        """The verdict on a variation: it may be short, and in the language of its prompt."""
        return self.judge_variations([text], [original])[0]

    def judge_variations(self, texts: Sequence[str], originals: Sequence[str]) -> list[Verdict]:
        """One verdict a text, each a variation of the original at its place."""
        verdicts = []
        for text, original, match in zip(texts, originals, self._matches(texts), strict=True):
            any_language = self.rules.language == "any" and bool(foreign(original))
            rules = replace(
                self.rules, language="any" if any_language else "en", min_words=1, min_chars=1
            )
            verdicts.append(_like_validation(match) if match else _judge(text, rules))
        return verdicts

    def _matches(self, texts: Sequence[str]) -> "Sequence[Match | None]":
        if self.validation is None:
            return [None] * len(texts)
        return self.validation.find_all(texts)

    # ------------------------------------------------------------------------- beside a file

    @classmethod
    def beside(cls, prompts_file: Path) -> "Screen":
        """The screen that a prompts file was combined with; without one, that of a run.

        UserError: the file beside it is broken, or was made with other embeddings.
        """
        path = path_beside(prompts_file)
        try:
            path.lstat()  # a link to nothing is there: its file was lost
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENAMETOOLONG):
                return cls()
            raise UserError(f"{path}: {error.strerror}") from None
        # imported here: a run without such a file does not need numpy
        from common.screening_file import UNREADABLE

        try:
            return cls._read(path)
        except (*UNREADABLE, TypeError) as error:
            why = error.strerror if isinstance(error, OSError) else error
            raise UserError(
                f"{path}: cannot be read ({why or type(error).__name__}); write it again with "
                "combine.py: without it the validation set could leak"
            ) from None

    @classmethod
    def _read(cls, path: Path) -> "Screen":
        from common.embeddings import model_name
        from common.screening_file import read_arrays
        from common.validation_set import ValidationSet

        arrays = read_arrays(path)
        about = parse_json(arrays.pop("about").tobytes())
        in_form(about, {"format": COUNT, "embeddings": str})
        if about["format"] != FORMAT or about["embeddings"] != model_name():
            raise UserError(
                f"{path}: was made with {about['embeddings']}, here is {model_name()}; "
                "combine the prompts again"
            )
        in_form(about, {"rules": RULES, "covers": (re.compile(""), SHA256)})
        validation = ValidationSet(arrays) if arrays else None
        return cls(Rules(**about["rules"]), validation, about["covers"])

    def save_beside(self, prompts_file: Path) -> Path:
        """Write the rules and the validation set's index beside a prompts file."""
        import numpy as np  # see beside

        from common.embeddings import model_name
        from common.screening_file import packed

        about = {
            "format": FORMAT,
            "embeddings": model_name(),
            "rules": asdict(self.rules),
            "covers": self.covers,
        }
        arrays = dict(self.validation.arrays) if self.validation else {}
        arrays["about"] = np.frombuffer(json.dumps(about, sort_keys=True).encode(), np.uint8)
        path = path_beside(prompts_file)
        write_whole(path, packed(arrays))
        return path


def _judge(text: str, rules: Rules) -> Verdict:
    found = safety.find(text)
    if found.minors:
        return Verdict(MINORS, found.minors)
    flags = []
    for reason, action, expression in (
        (SEXUAL, rules.sexual, found.sexual),
        (HATE, rules.hate, found.hate),
        (PROFANITY, rules.profanity, found.profanity),
    ):
        if expression and action == "drop":
            return Verdict(reason, expression)
        if expression and action == "flag":
            flags.append(reason.removesuffix(" content"))
    reason, rule = _form(text, rules)
    return Verdict(reason, rule, tuple(flags))


DENSE = re.compile("[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")


def _form(text: str, rules: Rules) -> tuple[str, str]:
    """(reason, rule) of what is wrong with a text that is harmless."""
    # in scripts without blanks two characters count as a word, or as six Latin letters
    dense = len(DENSE.findall(text))
    words = len(text.split()) + dense // 2
    length = len(text) + 2 * dense
    size = f"{words} words, {len(text)} characters"
    if control := CONTROL.search(text):
        return "control character", f"U+{ord(control[0]):04X}"
    if placeholder := find_placeholder(text):
        return "placeholder", placeholder
    if words < rules.min_words or length < rules.min_chars:
        return "too short", size
    if words > rules.max_words or len(text) > rules.max_chars:
        return "too long", size
    if loop := find_loop(text):
        return "loop", loop
    if rules.language == "en" and (language := foreign(text)):
        return NOT_ENGLISH, language
    if rules.language == "en" and (strange := find_gibberish(text)):
        return "gibberish", strange
    if rules.needs_subject and (why := find_no_subject(text)):
        return "no subject", why
    return "", ""


def path_beside(prompts_file: Path) -> Path:
    """combined.json -> combined.screening.npz"""
    return prompts_file.with_name(prompts_file.stem + ENDING)


def find_placeholder(text: str) -> str:
    """A placeholder in a text that nobody filled in; empty if there is none."""
    if NOTHING.fullmatch(text):
        return text.strip()[:40]
    if not PLACEHOLDER_SIGN.search(text):
        return ""
    found = PLACEHOLDER.search(text)
    return found[0] if found else ""


def find_loop(text: str) -> str:
    """What a text repeats many times; empty if nothing."""
    words = text.casefold().split()
    different = len(set(words))
    repeated = len(words) - different >= LOOP_TIMES - 1
    most = max(Counter(words).values()) if repeated else 1
    for size in range(1, LOOP_PHRASE + 1 if most >= LOOP_TIMES else 1):
        wanted = max((LOOP_TIMES - 1) * size, LOOP_WORDS - size)
        run = 0  # words in a row that are the same as the one `size` before
        for place in range(size, len(words)):
            run = run + 1 if words[place] == words[place - size] else 0
            if run >= wanted:
                return " ".join(words[place - size + 1 : place + 1])
    if len(words) >= 16 and different < FEW_WORDS * len(words):
        return f"{different} different words of {len(words)}"
    found = None
    if max(map(len, words), default=0) >= LETTER_LOOP_TIMES:
        found = LETTER_LOOP.search(text)
    return found[1] if found else ""


def _like_validation(match: "Match") -> Verdict:
    reason = f"{VALIDATION_SET}: {match.how}"
    return Verdict(reason, match.how, row=match.row, similarity=match.similarity)


def summary(counts: dict[str, int]) -> str:
    """The counts by reason as one line: "3 sexual content, 1 not English"."""
    ordered: list[tuple[str, Any]] = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} {reason}" for reason, count in ordered)
