"""Repair or drop prompts of HPDv2 that contain ChatGPT's own words.

>>> repair("The image depicts a fox.")
('A fox.', 'chat: the image depicts')
"""

import re

# begins like a sentence and has four words
SENTENCE = re.compile(r"""["'(]?[A-Z0-9][^\n]*\s\S+\s\S+\s\S+""")
LABEL = re.compile(
    r"^(?:(?:the|image|one sentence) )*description(?: without modifiers)?[,:] +", re.I
)
OF_WHAT = re.compile(
    r"^(?:the (?:image|picture) (?:is of|depicts|shows|features|portrays|displays|showcases)"
    r"|the image is(?: (?:titled|called|named))?(?= )|in the image,? there (?:is|are)"
    r"|of(?= )|features(?= )|depicts(?= ))\s+",
    re.I,
)
PAINTING = re.compile(
    r"^the (painting|drawing|artwork|illustration) (?:depicts|shows|features)\s+", re.I
)
CALLED = re.compile(r"^the painting is (?:(?:titled|called|named) (?=\")|(?=an? ))", re.I)
# "The image features a samurai and is painted in …": without its head it goes on otherwise
AND_IS = re.compile(
    r",?\s{1,3}and (?:it )?(?:is|are|was|were|ha(?:s|ve) been|can be) "
    r"(?=\w+ed\b|created|made|shown|drawn|found)"
)
AND_HAS = re.compile(
    r",?\s{1,3}and (?:it )?(?:has|have|features|depicts|shows|includes) (?!been\b)"
)
REFUSAL = re.compile(r"^(?:there is no (?:picture|image)|(?:i'm |i am )?sorry\b|as an ai\b)", re.I)


def repair(text: str) -> tuple[str | None, str | None]:
    """(prompt, name of the rule that changed it or None); (None, reason) drops it."""
    before = text
    rule = None
    text = text.strip()
    parts = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    if len(parts) > 1:
        # the model answered twice: take the first answer if it is a sentence, else the last one
        text = parts[0] if SENTENCE.match(parts[0]) else parts[-1]
        rule = "chat: second answer"
    if REFUSAL.match(text):
        return None, "chat: refusal"
    if len(text) > 2 and text[0] == text[-1] == '"' and '"' not in text[1:-1]:
        text = text[1:-1].strip()
        rule = "chat: quoted"
    if LABEL.match(text):
        text = LABEL.sub("", text)
        rule = "chat: label"
    headless = PAINTING.sub(_of_a, CALLED.sub("", OF_WHAT.sub("", text, count=1)))
    if headless != text:
        text = AND_HAS.sub(", with ", AND_IS.sub(", ", headless))
        rule = "chat: the image depicts"
    if not rule:
        return before, None
    return text[:1].upper() + text[1:], rule


def _of_a(found: re.Match[str]) -> str:
    """The painting depicts … -> A painting of …"""
    kind = found[1].lower()
    return f"{'An' if kind[0] in 'ai' else 'A'} {kind} of "
