"""What ChatGPT wrote around the prompts of HPDv2's three art styles, repaired or dropped.

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
    r"^(?:the image (?:is of|depicts|shows|features|portrays|displays|showcases)"
    r"|the image is(?= an? )|in the image,? there (?:is|are)"
    r"|of(?= )|features(?= )|depicts(?= ))\s+",
    re.I,
)
# "The image features a samurai and is painted in ...": without its head the sentence would break
MORE_VERBS = re.compile(
    r"\b(?:and|but|which|,) (?:is|are|was|were|has|have|features|depicts|shows|includes)\b"
)
REFUSAL = re.compile(r"^(?:there is no (?:picture|image)|(?:i'm |i am )?sorry\b|as an ai\b)", re.I)


def repair(text: str) -> tuple[str | None, str | None]:
    """(prompt, name of the rule that changed it or None); (None, reason) drops it."""
    before = text
    rule = None
    text = text.strip()
    parts = [part.strip() for part in re.split(r"\n\s*\n", text) if part.strip()]
    if len(parts) > 1:
        # the model answered twice: the first answer if it is a sentence, else (a torn one) the last
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
    if OF_WHAT.match(text) and not MORE_VERBS.search(text):
        text = OF_WHAT.sub("", text)
        rule = "chat: the image depicts"
    if not rule:
        return before, None
    return text[:1].upper() + text[1:], rule
