r"""Clean one prompt: undo what its source did to it, keep what its author meant.

>>> clean("a caf&eacute; in the style of Simon St\u00c3\u00a5lenhag, 8 k --ar 16:9 ")
('a caf\u00e9 in the style of Simon St\u00e5lenhag, 8k', [..., 'spacing', 'syntax: flag'])
"""

import html
import re
import unicodedata
from collections.abc import Callable

import ftfy
from anyascii import anyascii

from combine_prompts import punctuation, spacing, syntax

MOST_PASSES = 30  # 40,000 real prompts took 4 at most; without a bound a hostile one is slow
LOST = "\ufffd"  # the replacement character: a letter could not be decoded

ENTITY = re.compile(r"&(?:#\d{1,7};?|#[xX][0-9a-fA-F]{1,6};?|[A-Za-z][A-Za-z0-9]{1,31};)")
NESTED = re.compile(r"&(?:amp;|#0{0,4}38;|#x0{0,4}26;)+", re.I)
WIDE_COMMA = re.compile(r"\uff0c(?=[^\W\d])")
JOINERS = "\u200c\u200d"
EMOJI = re.compile("[\u00a9\u00ae\u203c-\u3299\U0001f000-\U0001faff\U000e0020-\U000e007f\ufe0f]")
BLACK_FLAG = "\U0001f3f4"  # followed by tags it is the flag of England, Scotland or Wales

Repair = Callable[[str], tuple[str | None, str | None]]


def clean(text: str, ascii: bool = False) -> tuple[str, list[str]]:
    """(cleaned text, sorted names of the rules that changed it); meaning and accents are kept.

    ASCII-only with `ascii`: transliterated, never dropped. Any Unicode string is taken; cleaning
    twice changes nothing more; no control character is left. Undecodable characters come back as
    U+FFFD (the processors drop such prompts).
    """
    rules: set[str] = set()
    for _ in range(MOST_PASSES):
        before = text
        for name, rule in RULES:
            changed = rule(text)
            if changed != text:
                rules.add(name)
                text = changed
        text, stripped = syntax.strip(text)
        rules.update(f"syntax: {name}" for name in stripped)
        folded = " ".join(text.split())
        if folded != text:
            rules.add("blanks")
        text = spacing.join(folded)
        if text != folded:
            rules.add("spacing")
        tidied = punctuation.tidy(text)
        if tidied != text:
            rules.add("punctuation")
            text = tidied
        if ascii and not text.isascii():
            rules.add("ascii")
            text = transliterate(text)
        if text == before:
            break
    return text, sorted(rules)


def clean_row(
    text: str, ascii: bool = False, repair: Repair | None = None
) -> tuple[str, str | None, list[str]]:
    """(cleaned, reason to drop the prompt or None, rules that changed it).

    `repair(text)`: a source's own repair, (text or None to drop it, name of the rule or None).
    """
    rules: list[str] = []
    if repair:
        repaired, rule = repair(mojibake(text))
        if repaired is None:
            return "", rule, []
        text = repaired
        rules = [rule] if rule else []
    cleaned, more = clean(text, ascii)
    reason = None
    if LOST in cleaned:
        reason = "undecodable character"
    elif not any(c.isalnum() or EMOJI.match(c) for c in cleaned):
        reason = "empty after cleaning" if text.strip() else "empty"
    return cleaned, reason, rules + more


def entities(text: str) -> str:
    """HTML entities, to the end: `&amp;amp;` is `&`.

    Without a semicolon only numbers count: `b&w;` and `&copycat` are words.
    """
    if "&" not in text:
        return text
    while True:
        plain = NESTED.sub("&", text) if NESTED.search(text) else text
        shorter = ENTITY.sub(lambda found: html.unescape(found[0]), plain)
        if shorter == text:
            return text
        text = shorter


def mojibake(text: str) -> str:
    """ftfy: mojibake, full-width letters, ligatures, curly quotes; then NFC.

    A full-width comma holds its own blank.
    """
    if text.isascii():
        return text
    fixed: str = ftfy.fix_text(
        WIDE_COMMA.sub("\uff0c ", text),
        unescape_html=False,
        remove_terminal_escapes=False,
        normalization="NFC",
    )
    return fixed


def invisible(text: str) -> str:
    """Control and format characters go; what joins letters or shapes emoji stays."""
    if text.isascii() and text.isprintable():
        return text
    kept: list[str] = []
    for position, character in enumerate(text):
        if _is_visible(text, position, kept[-1] if kept else ""):
            kept.append(character)
    return "".join(kept)


def _is_visible(text: str, position: int, last_kept: str) -> bool:
    """Whether a character shows, or changes how its neighbours show."""
    character = text[position]
    category = unicodedata.category(character)
    if character.isspace():
        return True  # any kind of blank and line end: folded later
    if category in ("Cc", "Co", "Cs"):
        return False
    if character in JOINERS:
        around = text[position - 1 : position] + text[position + 1 : position + 2]
        return len(around) == 2 and all(_joins(neighbour) for neighbour in around)
    if "\ufe00" <= character <= "\ufe0f" or "\U000e0100" <= character <= "\U000e01ef":
        return position > 0 and _takes_selector(text[position - 1])
    if _is_tag(character):
        return bool(last_kept) and (last_kept == BLACK_FLAG or _is_tag(last_kept))
    if category == "Cf":  # signs before Arabic numbers and the like are printed
        return "\u0600" <= character <= "\u0605" or character in "\u06dd\u070f\u08e2\U000110bd"
    return True


def _is_tag(character: str) -> bool:
    return "\U000e0020" <= character <= "\U000e007f"


def _joins(character: str) -> bool:
    """Whether a zero-width joiner beside `character` does something.

    It does in scripts that join letters, and between emoji. Between Latin letters it is garbage.
    """
    is_letter = unicodedata.category(character)[0] in "LM"
    return bool(EMOJI.match(character)) or (character > "\u0590" and is_letter)


def _takes_selector(character: str) -> bool:
    if character in "#*0123456789" or EMOJI.match(character):
        return True
    return unicodedata.category(character) in ("So", "Sm", "Lo", "Po", "Sk")


def transliterate(text: str) -> str:
    """ASCII letters for all others; emoji go (anyascii would write :bridge_at_night:)."""
    return "".join(_ascii_of(character) for character in text)


def _ascii_of(character: str) -> str:
    letters: str = anyascii(character)
    is_name = letters[:1] + letters[-1:] == "::"
    return "" if is_name and EMOJI.match(character) else letters


RULES = [("mojibake", mojibake), ("entities", entities), ("invisible", invisible)]
