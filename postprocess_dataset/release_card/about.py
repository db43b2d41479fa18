"""about.yaml: what only the author of a data set knows. What is missing is listed in the card.

about = read_about("about.yaml")
about["title"], about.get("motivation"), about.gaps          # ["funding", …]
"""

import difflib
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from common.command_line import UserError
from common.console import visible
from common.files import parse_yaml
from common.untrusted import read_text

# field: (what to write there). Those of GAPS are listed at the end of a card that lacks them.
FIELDS = {
    "title": "the name of the data set, for people",
    "repo": "where it will lie on the hub: ORGANISATION/NAME",
    "version": "of the data set, as 1.0.0",
    "licence": "under which you publish it, as a licence id of the hub (cc-by-4.0)",
    "summary": "two sentences: what it is, and for what",
    "authors": "a list of names",
    "contact": "a mail address or a page for questions",
    "homepage": "a page about it",
    "motivation": "why it was made, and for which task",
    "funding": "who paid for it",
    "intended_uses": "what it is good for",
    "unsuitable_uses": "what it must not be used for",
    "biases": "which biases you know of",
    "personal_information": "whether prompts or images may show persons, and what was done",
    "human_review": "whether people looked at the images, at how many, and what they found",
    "maintenance": "who maintains it, how errors are reported, whether it will grow",
    "citation": "BibTeX of your own",
}
GAPS = tuple(name for name in FIELDS if name not in ("title", "licence", "homepage", "citation"))
MOST = 20_000  # characters of a field
JOINED = "\n\t\r\u200c\u200d"  # lines, and what joins letters and emoji
REPO = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)


class About(dict[str, Any]):
    """The fields that are known; texts, but `authors`, a list of texts."""

    @property
    def gaps(self) -> dict[str, str]:
        """{field: what belongs there} of the fields that the author left out."""
        return {name: FIELDS[name] for name in GAPS if not self.get(name)}


def read_about(path: str) -> About:
    """The author's file; "" is none. UserError: it is damaged, or has a field that is unknown."""
    if not path:
        return About()
    try:
        loaded = parse_yaml(read_text(path)) or {}
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise UserError(f"--about {path}: cannot be read: {why}") from None
    if not isinstance(loaded, Mapping):
        raise UserError(f"--about {path}: write one field a line, like title: My data set")
    about = About()
    for name, value in loaded.items():
        if name not in FIELDS:
            near = difflib.get_close_matches(str(name), FIELDS, 1)
            hint = f", did you mean {near[0]}?" if near else f"; known are {', '.join(FIELDS)}"
            raise UserError(f"--about {path}: unknown field {name!r}{hint}")
        about[name] = _value(path, name, value)
    return about


def _value(path: str, name: str, value: Any) -> Any:
    if value is None:
        return None
    if name == "authors":
        authors = [value] if isinstance(value, str) else value
        if not isinstance(authors, list) or not all(isinstance(each, str) for each in authors):
            raise UserError(f"--about {path}: authors is a list of names")
        return [_shown(path, name, each) for each in authors]
    if not isinstance(value, str | int | float) or len(str(value)) > MOST:
        raise UserError(f"--about {path}: {name} is a text of at most {MOST:,} characters")
    return _shown(path, name, str(value).strip())


def _shown(path: str, name: str, text: str) -> str:
    """The text. UserError: a reader of the card would not see what it holds."""
    for sign in text:
        if unicodedata.category(sign) in ("Cc", "Cf") and sign not in JOINED:
            raise UserError(
                f"--about {path}: {name} holds {visible(sign)}, which nobody sees; leave it out"
            )
    if name == "repo" and not REPO.fullmatch(text):
        raise UserError(f"--about {path}: repo is ORGANISATION/NAME of the hub")
    return text
