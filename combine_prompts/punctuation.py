r"""Remove punctuation without meaning: commas at the ends, ",,", escaped quotes, `!!!!!!!`.

>>> tidy(", a fox,, it\\'s red | | snow, ")
"a fox, it's red | snow"
"""

import re

NOTHING_AFTER = " ,;|\\/"  # without meaning at the end of a prompt
NOTHING_ALONE = NOTHING_AFTER + "*_+-="  # without meaning there if a blank stands before
LEADING = re.compile(r"(?:[,;|\\]\s*|[:.*/-]\s+)+")  # but not :) or .5 or -
ESCAPE = re.compile(r"\\(?=['\"()\[\]{}_.,:&*])")  # WebUI's \( and JSON's \'
LONE_BACKSLASH = re.compile(r"(?<=\s)\\+(?=\s)")
COMMAS = re.compile(r",(?:\s*,)+")
BARS = re.compile(r"\|(?:\s*\|)+")
# "red ,blue", "jungle ,4k", "red,blue", but not 1,000 or 1 ,000
TIGHT_COMMA = re.compile(r"\s,(?=[^\W\d])|(?<=[^\W\d])\s,(?=\d)|(?<=[^\W\d]),(?=[^\W_])")
QUOTES = ('"', "''")
DIGITS = re.compile(r"(\d)\1{15,}\s*")
SIGNS = re.compile(r"([!?;:*~=#+_-])\1{5,}")
FEW = 3  # of a sign that was written without end


def tidy(text: str) -> str:
    """The text without such punctuation. Linear time; a second call changes nothing."""
    if "\\" in text:
        text = LONE_BACKSLASH.sub(",", ESCAPE.sub("", text))
    text = TIGHT_COMMA.sub(", ", BARS.sub("|", COMMAS.sub(",", text)))
    text = DIGITS.sub("", text)
    text = SIGNS.sub(lambda found: found[1] * FEW, text)
    if leading := LEADING.match(text):
        text = text[leading.end() :]
    for quote in QUOTES:
        inside = text[len(quote) : -len(quote)]
        if text == quote + inside + quote and quote not in inside and inside.strip():
            text = inside.strip()
    short = text.rstrip(NOTHING_ALONE)
    if text[len(short) : len(short) + 1] in tuple(NOTHING_AFTER):
        return short
    text = text.rstrip(NOTHING_AFTER)
    if len(text) > 1 and text[-1] == ":" and (text[-2].isalnum() or text[-2] == " "):
        return text[:-1].rstrip(NOTHING_AFTER)
    return text
