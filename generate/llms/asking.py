"""What an LLM is asked: the instruction, the messages, the JSON schema, one request of the router.

messages(instruction, "a corgi in a top hat", 9)       # [("user", "You write captions …")]
schema(9)
"""

import collections
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

from common.command_line import UserError
from generate.llms.backend import Backend, ChatRequest, Messages, Reply
from generate.llms.failures import Failure
from generate.llms.variations import VariationFilter, overlap

INSTRUCTION = Path(__file__).resolve().parent / "instruction.txt"
AVOIDED = 30  # texts that a model is told not to repeat
SCHEMA_BYTES = 1500  # of schema and roles, at most
Text = dict[str, Any]  # {"text", "llm_model_name", "backend", "overlap"}, as .prompts holds it
EXAMPLE = "a red bicycle against a brick wall"
EXAMPLE_ANSWER = [
    "a red bicycle against a brick wall in Havana at noon, watercolour",
    "a red bicycle against a brick wall covered in snow, seen from above",
    "a rusty red bicycle leaning on a temple wall in old Kyoto, woodblock print",
    "a red bicycle beside a graffiti wall at midnight, neon lights, wide angle",
]


def read_instruction(path: str | os.PathLike[str] | None = None) -> str:
    """The instruction's text. Raises UserError when it cannot be read or lacks a place."""
    path = path or INSTRUCTION
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the instruction {path}: {error}") from None
    for place in ("{n}", "{prompt}"):
        if place not in text:
            raise UserError(f"the instruction {path} must hold {place}")
    return text.rstrip() + "\n"


def schema(n: int, prompt: str | None = None) -> dict[str, Any]:
    """JSON schema of an answer with exactly n texts.

    With `prompt`, each begins with its subject: a pattern (llama.cpp makes a grammar of it). The
    subject is the beginning of the prompt as far as it is plain letters, 60 characters at most: the
    rest would need escaping.
    """
    item = {"type": "string"}
    if prompt:
        found = re.match(r"[A-Za-z0-9 ,']*", prompt)
        subject = found[0][:61] if found else ""
        if len(subject) == 61:
            subject = subject[:60].rsplit(" ", 1)[0]
        subject = subject.strip(" ,'")
        begun = f"^{subject},? [a-zA-Z ,']{{12,60}}[a-z]$"
        item["pattern"] = begun if subject else "^[a-zA-Z ,']{20,90}[a-z]$"
    texts = {"type": "array", "items": item, "minItems": n, "maxItems": n}
    return {
        "title": "variations",
        "type": "object",
        "properties": {"variations": texts},
        "required": ["variations"],
        "additionalProperties": False,
    }


def messages(
    instruction: str, prompt: str, n: int, avoid: list[str] | None = None, few_shot: bool = False
) -> Messages:
    """What is said to the model. instruction: a template with {n} and {prompt}.

    avoid: texts it has written already; few_shot: with a worked example, which small models need.
    """
    said: Messages = []
    if few_shot:
        said.append(("user", _filled(instruction, EXAMPLE, len(EXAMPLE_ANSWER))))
        said.append(("assistant", json.dumps({"variations": EXAMPLE_ANSWER})))
    text = _filled(instruction, prompt, n)
    if avoid:
        lines = "\n".join(f"- {line}" for line in avoid)
        text = f"Already written, do not repeat these:\n{lines}\n\n{text}"
    return [*said, ("user", text)]


def _filled(instruction: str, prompt: str, n: int) -> str:
    quoted = json.dumps(prompt, ensure_ascii=False)[1:-1]
    return instruction.replace("{n}", str(n)).replace("{prompt}", quoted)


class VariationRequest:
    """One question for the router: more texts for one prompt."""

    def __init__(
        self, prompt: str, missing: int, kept: VariationFilter, instruction: str, seed: str
    ) -> None:
        """seed: a text that names this request; calls of different requests get other seeds."""
        self.prompt = prompt
        self.missing = missing
        self.kept = kept
        self.instruction = instruction
        self.seed = seed
        self.asked = 0
        avoided = sum(len(text.encode()) + 4 for text in kept.texts[-AVOIDED:])
        twice = 2 * (len(instruction.encode()) + len(prompt.encode()))
        self.prompt_bytes = twice + avoided + SCHEMA_BYTES

    def make(self, backend: Backend) -> ChatRequest:
        """At most config.batch texts, in the form this backend does best with."""
        self.asked += 1
        digest = hashlib.sha256(f"{self.seed}/{self.asked}".encode("utf-8", "surrogatepass"))
        seed = int.from_bytes(digest.digest()[:4], "big") >> 1
        return self._request(backend, self.prompt, self.missing, seed)

    def probe(self, backend: Backend) -> ChatRequest:
        """A plain prompt: does the backend fail at everything or only at this one?"""
        return self._request(backend, EXAMPLE, 1, 0)

    def _request(self, backend: Backend, prompt: str, n: int, seed: int) -> ChatRequest:
        config = backend.config
        n = min(n, config.batch)
        # A small model repeats what it is told not to.
        large = config.batch >= 10 and not config.few_shot and prompt == self.prompt
        avoid = self.kept.texts[-AVOIDED:] if large else []
        begin_with = prompt if config.begin_with_prompt else None
        return ChatRequest(
            messages(self.instruction, prompt, n, avoid, config.few_shot),
            schema(n, begin_with) if config.json == "schema" else None,
            seed,
            n,
        )

    def judge(self, backend: Backend, reply: Reply) -> list[Text]:
        """The texts that can be used. Raises Failure when there are none."""
        accepted, why = self.kept.accept(reply.text, self.missing)
        if not accepted:
            kind = collections.Counter(why).most_common(1)[0][0] if why else "unusable"
            raise Failure(kind, f"none of the answer's texts could be used ({kind})")
        return [
            {
                "text": text,
                "llm_model_name": backend.config.model,
                "backend": backend.config.name,
                "overlap": overlap(self.prompt, text),
            }
            for text in accepted
        ]
