"""Build the request for variations: instruction, messages, JSON schema.

wording = Wording.read()                                    # instruction.txt and attributes.yaml
request = VariationRequest("a corgi in a top hat", 9, VariationFilter(…), wording, "seed")
"""

import collections
import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.command_line import UserError
from common.untrusted import read_text
from generate.llms.attributes import Attributes, Drawn, drawn_for, lines_of
from generate.llms.backend import Backend, BackendConfig, ChatRequest, Messages, Reply
from generate.llms.copies import overlap
from generate.llms.failures import Failure
from generate.llms.variations import Given, VariationFilter

INSTRUCTION = Path(__file__).resolve().parent / "instruction.txt"
AVOIDED = 30  # texts that a model is told not to repeat
SCHEMA_BYTES = 2500  # of schema and roles, at most
MOST_TEXTS = 50  # of one call
ASKED_AGAIN = 4  # texts at least, after a call that brought nothing; one alone is often a copy
Text = dict[str, Any]  # {"text", "llm_model_name", "backend", "overlap", "attributes"}
EXAMPLE = "a red bicycle against a brick wall"
EXAMPLE_DRAWN: list[Drawn] = [
    {"place": "in Havana", "time": "at noon", "medium": "watercolour"},
    {"time": "in deep winter", "shot": "from above"},
    {"place": "in Old Kyoto", "medium": "woodcut", "mood": "weary"},
    {"time": "at midnight", "light": "neon light", "shot": "wide shot"},
]
EXAMPLE_ANSWER = [
    "a red bicycle against a brick wall in Havana at noon, watercolour",
    "a bicycle and a wall deep in snow, seen from above",
    "a rusty bicycle leaning on a temple wall in Old Kyoto, weary, woodcut",
    "red racing bicycle beside a graffiti wall at midnight, neon light, wide shot",
]


@dataclass(frozen=True)
class Wording:
    """The instruction, and what its {attributes} are drawn from (None: it has no such place)."""

    instruction: str
    attributes: Attributes | None

    @classmethod
    def read(
        cls,
        instruction: str | os.PathLike[str] | None = None,
        attributes: str | os.PathLike[str] | None = None,
    ) -> "Wording":
        """Of the user's files, else the project's. Raises UserError for unusable ones."""
        text = read_instruction(instruction)
        if "{attributes}" in text:
            return cls(text, Attributes.read(attributes))
        if attributes:
            raise UserError(f"the instruction {instruction} has no place {{attributes}} for them")
        return cls(text, None)

    def given(self) -> Given:
        """What a text must not repeat: the instruction, the worked example and the attributes."""
        example = "\n".join([self.instruction, *EXAMPLE_ANSWER])
        return Given(example, self.attributes)


def read_instruction(path: str | os.PathLike[str] | None = None) -> str:
    """The instruction's text. Raises UserError when it cannot be read or lacks a place."""
    path = path or INSTRUCTION
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the instruction {path}: {error}") from None
    for place in ("{n}", "{prompt}"):
        if place not in text:
            raise UserError(f"the instruction {path} must hold {place}")
    return text.rstrip() + "\n"


def schema(n: int, patterns: Sequence[str] = ()) -> dict[str, Any]:
    """JSON schema of an answer with exactly n texts.

    patterns: a regular expression for each text, or one for all.
    """
    items: list[dict[str, str]] = [{"type": "string", "pattern": each} for each in patterns]
    texts: dict[str, Any] = {"type": "array", "minItems": n, "maxItems": n}
    if len(items) > 1:
        texts |= {"prefixItems": items}
    else:
        texts |= {"items": items[0] if items else {"type": "string"}}
    return {
        "title": "variations",
        "type": "object",
        "properties": {"variations": texts},
        "required": ["variations"],
        "additionalProperties": False,
    }


def begin_with(prompt: str, drawn: Drawn) -> str:
    """A pattern for a model too small to follow an instruction: the prompt's subject, free words,
    then the attributes.

    llama.cpp makes a grammar of it. The subject is the beginning of the prompt as far as it is
    plain letters, 60 characters at most: the rest would need escaping. With attributes it ends at
    the first comma, behind which prompts name style and light. It ends with a whole word.
    """
    found = re.match(r"[A-Za-z0-9 '-]{0,60}" if drawn else r"[A-Za-z0-9 ,'-]{0,60}", prompt)
    subject = found[0] if found else ""
    if prompt[len(subject) : len(subject) + 1].isalnum():
        subject = subject.rsplit(" ", 1)[0]
    subject = subject.strip(" ,'-")
    if drawn:
        tail = ", ".join(re.escape(word).replace("\\ ", " ") for word in drawn.values())
        return f"^{subject},?( [a-zA-Z']{{1,13}}){{1,8}}, {tail}$"
    return f"^{subject},? [a-zA-Z ,']{{12,60}}[a-z]$" if subject else "^[a-zA-Z ,']{20,90}[a-z]$"


def messages(
    instruction: str, prompt: str, n: int, drawn: Sequence[Drawn] = (), few_shot: bool = False
) -> Messages:
    """The messages to the model. instruction: a template with {n}, {prompt} and {attributes}.

    drawn: attributes for each text; few_shot: with a worked example, which small models need.
    """
    said: Messages = []
    if few_shot:
        n_example = len(EXAMPLE_ANSWER)
        said.append(("user", _filled(instruction, EXAMPLE, n_example, EXAMPLE_DRAWN)))
        said.append(("assistant", json.dumps({"variations": EXAMPLE_ANSWER})))
    return [*said, ("user", _filled(instruction, prompt, n, drawn))]


def _filled(instruction: str, prompt: str, n: int, drawn: Sequence[Drawn]) -> str:
    quoted = json.dumps(prompt, ensure_ascii=False)[1:-1]
    text = instruction.replace("{n}", str(n))
    text = text.replace("{attributes}", lines_of(drawn) if drawn else "")
    return text.replace("{prompt}", quoted)


def _avoiding(text: str, avoid: Sequence[str]) -> str:
    lines = "\n".join(f"- {line}" for line in avoid)
    return f"Already written, do not repeat these:\n{lines}\n\n{text}" if avoid else text


class VariationRequest:
    """One question for the router: more texts for one prompt."""

    def __init__(
        self, prompt: str, missing: int, kept: VariationFilter, wording: Wording, seed: str
    ) -> None:
        """seed: a text that names this request; calls of different requests get other seeds."""
        self.prompt = prompt
        self.missing = missing
        self.kept = kept
        self.wording = wording
        self.seed = seed
        self.asked = 0
        self.drawn: list[Drawn] = []  # for the call that is under way
        avoided = sum(len(text.encode()) + 4 for text in kept.texts[-AVOIDED:])
        twice = 2 * (len(wording.instruction.encode()) + len(prompt.encode()))
        most = min(max(missing, ASKED_AGAIN), MOST_TEXTS)
        drawn = wording.attributes.most_bytes(most) if wording.attributes else 0
        self.prompt_bytes = twice + avoided + drawn + SCHEMA_BYTES

    def make(self, backend: Backend) -> ChatRequest:
        """At most config.batch texts, in the form this backend does best with."""
        self.asked += 1
        config = backend.config
        seed = f"{self.seed}/{self.asked}"
        wanted = self.missing if self.asked == 1 else max(self.missing, ASKED_AGAIN)
        n = min(wanted, config.batch, MOST_TEXTS)
        attributes = self.wording.attributes
        self.drawn = attributes.draw(seed, n, self.prompt) if attributes else []
        asked = messages(self.wording.instruction, self.prompt, n, self.drawn, config.few_shot)
        # A small model repeats the texts that it is told to avoid.
        if config.batch >= 10 and not config.few_shot:
            role, text = asked[-1]
            asked[-1] = (role, _avoiding(text, self.kept.texts[-AVOIDED:]))
        digest = hashlib.sha256(seed.encode("utf-8", "surrogatepass")).digest()
        number = int.from_bytes(digest[:4], "big") >> 1
        return ChatRequest(asked, _schema_for(config, n, self.prompt, self.drawn), number, n)

    def probe(self, backend: Backend) -> ChatRequest:
        """A plain prompt: does the backend fail at everything or only at this one?"""
        config = backend.config
        asked = messages(self.wording.instruction, EXAMPLE, 1, (), config.few_shot)
        return ChatRequest(asked, _schema_for(config, 1, EXAMPLE, ()), 0, 1)

    def judge(self, backend: Backend, reply: Reply) -> list[Text]:
        """The texts that can be used. Raises Failure when there are none."""
        config = backend.config
        pattern = config.pattern_for(self.prompt)
        accepted, why = self.kept.accept(reply.text, self.missing, reply.cut, pattern)
        if not accepted:
            kind = collections.Counter(why).most_common(1)[0][0] if why else "unusable"
            raise Failure(kind, f"none of the answer's texts could be used ({kind})")
        return [
            {
                "text": text,
                "llm_model_name": config.model,
                "backend": config.name,
                "overlap": overlap(self.prompt, text),
                "attributes": drawn_for(text, place, self.drawn),
            }
            for place, text in accepted
        ]


def _schema_for(
    config: BackendConfig, n: int, prompt: str, drawn: Sequence[Drawn]
) -> dict[str, Any] | None:
    if config.json != "schema":
        return None
    if pattern := config.pattern_for(prompt):
        return schema(n, [_anchored(pattern)])
    if config.begin_with_prompt:
        return schema(n, [begin_with(prompt, each) for each in drawn] or [begin_with(prompt, {})])
    return schema(n)


def _anchored(pattern: str) -> str:
    """For a JSON schema, which searches; llama.cpp wants both anchors."""
    pattern = pattern.removeprefix("^")
    if pattern.endswith("$") and not pattern.endswith("\\$"):
        pattern = pattern[:-1]
    return f"^({pattern})$"
