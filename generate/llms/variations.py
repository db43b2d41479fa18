"""What an LLM is asked for and what is taken from its answer: instruction, JSON schema, tolerant parser, rejection of rubbish.

kept = Kept("a corgi in a top hat", known=[])
texts, why = kept.sift('{"variations": ["a corgi in a top hat at sea", "A corgi in a top hat."]}')    # one text, {"copies": 1}
"""

import json
import re
import unicodedata

LONGEST = 2000  # characters of a text: a JPEG comment holds 65 kB with all metadata, and a text may be nothing but 4-byte characters
# rapidfuzz ratio of folded texts from which on one is a copy: "… in snow" / "… in the snow" are, another place or style is not
ALIKE = 92
REFUSAL = re.compile(
    r"^(i(['’]m| am)? (sorry|unable|afraid)|sorry\b|i (can['’]?t|cannot|can not|won['’]?t|must decline|apologi[sz]e)"
    r"|as an ai\b|unfortunately, i)",
    re.I,
)
REFUSAL_ANYWHERE = re.compile(
    r"\b(can['’]?t|cannot|unable to) (help|assist|comply|create|generate|fulfil|provide)\b.*\b(request|content|that|this)\b",
    re.I,
)
PREAMBLE = re.compile(
    r"^(sure|certainly|of course|okay|here (are|is|'s)|here’s|below are|the following|these are|hope (this|these|you)"
    r"|let me know)\b.*([:!.]|variations?|captions?|rewrites?)$",
    re.I,
)
NUMBER = re.compile(
    r"^\s*(?:[-*•]\s+|\(?\d{1,3}[.):]\s+|(?:variation|caption|rewrite|prompt)\s*#?\d{1,3}\s*[:.)-]\s*)",
    re.I,
)
EXAMPLE = (
    "a red bicycle against a brick wall",
    [
        "a red bicycle against a brick wall in Havana at noon, watercolour",
        "a red bicycle against a brick wall covered in snow, seen from above",
        "a rusty red bicycle leaning on a temple wall in old Kyoto, woodblock print",
        "a red bicycle beside a graffiti wall at midnight, neon lights, wide angle",
    ],
)


def schema(n, prompt=None):
    """JSON schema of an answer with exactly n texts. With `prompt`, each begins with its subject: a pattern (llama.cpp: a grammar).

    The subject is the beginning of the prompt as far as it is plain letters, 60 characters at most: the rest would need escaping.
    """
    item = {"type": "string"}
    subject = re.match(r"[A-Za-z0-9 ,']*", prompt or "")[0][:61]
    subject = (subject if len(subject) < 61 else subject[:60].rsplit(" ", 1)[0]).strip(" ,'")
    if prompt:
        item["pattern"] = (
            f"^{subject},? [a-zA-Z ,']{{12,60}}[a-z]$" if subject else "^[a-zA-Z ,']{20,90}[a-z]$"
        )
    texts = {"type": "array", "items": item, "minItems": n, "maxItems": n}
    return {
        "title": "variations",
        "type": "object",
        "properties": {"variations": texts},
        "required": ["variations"],
        "additionalProperties": False,
    }


def messages(instruction, prompt, n, avoid=(), few_shot=False):
    """[(role, text), …]. instruction: a template with {n} and {prompt}; few_shot: with a worked example, which small models need."""
    asked = []
    if few_shot:
        example, texts = EXAMPLE
        asked = [
            ("user", _fill(instruction, example, len(texts))),
            ("assistant", json.dumps({"variations": texts})),
        ]
    text = _fill(instruction, prompt, n)
    if avoid:
        text = (
            "Already written, do not repeat these:\n"
            + "\n".join(f"- {line}" for line in avoid)
            + "\n\n"
            + text
        )
    return asked + [("user", text)]


def _fill(instruction, prompt, n):
    return instruction.replace("{n}", str(n)).replace(
        "{prompt}", json.dumps(prompt, ensure_ascii=False)[1:-1]
    )


def parse(text):
    """Texts of an answer: JSON wherever it stands in it, cut off or not; else a numbered or dashed list. [] if there is neither."""
    from langchain_core.utils.json import parse_json_markdown

    found = None
    start = min((k for k in (text.find("{"), text.find("[")) if k >= 0), default=-1)
    if start >= 0:
        try:
            found = parse_json_markdown(text if "```" in text else text[start:])
        except ValueError:  # json.JSONDecodeError is one
            found = None
    if isinstance(found, dict):
        found = next(
            (value for value in found.values() if isinstance(value, list)), list(found.values())
        )
    if isinstance(found, list):
        texts = [
            next((v for v in item.values() if isinstance(v, str)), None)
            if isinstance(item, dict)
            else item
            for item in found
        ]
        return [item for item in texts if isinstance(item, str)]
    lines = text.splitlines()
    listed = [line for line in lines if NUMBER.match(line)]
    return listed if len(listed) > 1 else [line for line in lines if REFUSAL.match(line.strip())]


def fold(text):
    """Letters and digits alone, in lower case, without accents and articles, single blanks: what two copies have in common."""
    text = unicodedata.normalize("NFKD", text).casefold()
    words = "".join(c if c.isalnum() else " " for c in text if not unicodedata.combining(c)).split()
    return " ".join([word for word in words if word not in ("a", "an", "the")] or words)


def overlap(original, text):
    """Share of the original's words that the text has too, 0 … 1."""
    words = set(fold(original).split())
    return round(len(words & set(fold(text).split())) / len(words), 3) if words else 0.0


def clean(text):
    """The text without numbering, quotes around it, control characters and line breaks; lone surrogates are dropped."""
    text = NUMBER.sub("", text.encode("utf-8", "ignore").decode("utf-8"))
    text = " ".join(
        "".join(c if c.isprintable() else " " for c in unicodedata.normalize("NFC", text)).split()
    )
    if len(text) > 1 and (text[0], text[-1]) in (('"', '"'), ("“", "”"), ("'", "'"), ("«", "»")):
        text = text[1:-1].strip()
    return text


class Kept:
    """The texts accepted for one prompt so far, and the judge of further ones."""

    def __init__(self, prompt, known=(), min_overlap=0.0):
        self.prompt, self.min_overlap, self.texts = prompt, min_overlap, []
        self.folded = [fold(prompt), *(fold(text) for text in known)]

    def sift(self, answer, most=None):
        """(texts accepted now, {reason: rejected}). Accepted texts are remembered."""
        from rapidfuzz import fuzz, process

        accepted, why = [], {}
        for text in (clean(item) for item in parse(answer)):
            folded = fold(text)
            if not folded or len(folded) < 3:
                reason = "unusable"
            elif REFUSAL.match(text) or (len(text) < 200 and REFUSAL_ANYWHERE.search(text)):
                reason = "refusal"
            elif PREAMBLE.match(text):
                reason = "unusable"
            elif len(text) > LONGEST:
                reason = "too long"
            elif folded in self.folded or process.extractOne(
                folded, self.folded, scorer=fuzz.ratio, score_cutoff=ALIKE
            ):
                reason = "copies"
            elif self.min_overlap and overlap(self.prompt, text) < self.min_overlap:
                reason = "off the subject"
            elif most is not None and len(accepted) >= most:
                reason = "more than asked for"
            else:
                accepted.append(text)
                self.texts.append(text)
                self.folded.append(folded)
                continue
            why[reason] = why.get(reason, 0) + 1
        return accepted, why
