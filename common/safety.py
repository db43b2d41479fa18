"""Find sexual content (with minors: always refused), hate and profanity in a text.

>>> find("a 15 year old in lingerie").minors
'15 year old + lingerie'

The lists are in common/word_lists; their words count in every spelling of spelling_tricks.py, and
do not count inside a phrase of innocent.txt ("naked mole rat", "paint stripper").
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import accumulate
from operator import or_

from common.phrases import BEFORE_LAST, LAST, Hit, PhraseTable, read_phrases
from common.spelling_tricks import (
    masked_words,
    plain_letters,
    readings,
    spells_out,
    tokens_of_plain,
    torn_words,
)

# Looked up first: a text without a hit in these is harmless, and most texts have none.
DECISIVE = ("explicit", "suggestive", "mood", "weakly_suggestive", "hate", "profanity")
MINOR = ("child", "young")
HARMLESS = ("innocent", "rude")  # rude words are no sexual content
NEAR = 10  # words: farther from a person, "voluptuous" is said of fruits and "sensual" of the style
DECIDES = 4  # beside BEFORE_LAST and LAST: a word that is a decisive phrase by itself
NAMES = frozenset(("anal",))  # Ana L. is a name, not a word that was torn
LONGEST_KNOWN = 40  # letters: the fast test skips longer tokens
BETWEEN = 5  # words at most between "young" and its noun: "a young red-haired anime girl"
CHILDREN = frozenset(("girl", "girls", "boy", "boys", "teen", "teens", "teenager", "idol"))
GROWN_UP = frozenset(
    ("woman", "women", "man", "men", "lady", "ladies", "goddess", "mother", "father")
)
ADULT = 18
NUMBER_WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
NUMBER_WORDS += ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen"]
NUMBER_WORDS += ["seventeen", "eighteen"]
NUMBERS = {word: value for value, word in enumerate(NUMBER_WORDS)}
NUMBER = rf"(?:(?P<tens>\d) )?(?P<number>\d{{1,2}}|{'|'.join(NUMBERS)})"
YEARS = "(?:years?|yrs?|y|months?|weeks?|days?|winters|summers)"
AFTER = "(?:old|olds|o|of age|young|aged|girl|boy|kid|child|teen|student|virgin|daughter|son)"
NO_AGE = (
    "(?:seconds?|minutes?|hours?|dollars?|percent|meters?|feet|degrees|miles|km|pounds?|people)"
)
AGES = [
    re.compile(rf"\b{NUMBER} (?:{YEARS} {AFTER}|yo|yos|yrs?|y)\b"),
    re.compile(rf"\b(?:age|aged|ages|turned|turning|turns|is only|barely) (?:of |is )?{NUMBER}\b"),
    re.compile(
        r"\b(?:under|below|younger than|not yet|less than|before) (?:age |the age of |age of )?"
        rf"{NUMBER}\b(?! {NO_AGE})"
    ),
    re.compile(rf"\b{NUMBER} ?(?:st|nd|rd|th) (?:birthday|grade|grader|graders)\b"),
    re.compile(rf"\b(?:girl|boy|child|kid|daughter|son|virgin|maiden) of {NUMBER}\b(?! {NO_AGE})"),
]
UNDER = re.compile(r"^(?:under|below|younger|not|less|before)")
GRADES = re.compile(r"grade")


@dataclass(frozen=True)
class Findings:
    """What was found of each kind: the words, empty if nothing."""

    minors: str = ""
    sexual: str = ""
    hate: str = ""
    profanity: str = ""


NOTHING = Findings()


def find(text: str) -> Findings:
    """What is found in a text, over all its readings."""
    plain = plain_letters(text)
    split = _torn_words(plain)
    if not split and not _may_matter(tokens_of_plain(plain)):
        return NOTHING
    worst = NOTHING
    for words in readings(text):
        found = _find_in(words)
        worst = Findings(
            worst.minors or found.minors,
            worst.sexual or found.sexual,
            worst.hate or found.hate,
            worst.profanity or found.profanity,
        )
    if hidden := [*map(_unmasked, masked_words(text)), *split]:
        worst = _with_hidden(worst, hidden, text)
    return worst


def _find_in(words: Sequence[str]) -> Findings:
    hits = _counted(_table(DECISIVE).find(words), words)
    if not hits:
        return NOTHING
    return Findings(
        _find_minors(hits, words),
        _first(hits, "explicit"),
        _first(hits, "hate"),
        _first(hits, "profanity"),
    )


def _find_minors(hits: Sequence[Hit], words: Sequence[str]) -> str:
    """A word for a minor and one of a sexual list, as "schoolgirl + sexy"; empty if nothing."""
    outright = _first(hits, "explicit") or _first(hits, "suggestive")
    mood = _first(hits, "mood")
    weak = _first(hits, "weakly_suggestive")
    if not (outright or mood or weak):
        return ""
    people = _with_young_ones(_counted(_table(MINOR).find(words), words), words)
    age = find_age(words)
    child = age or _first(people, "child")
    young = child or _first(people, "young")
    if young and outright:
        return f"{young} + {outright}"
    if child and mood:
        return f"{child} + {mood}"
    if age and weak:
        return f"{age} + {weak}"
    return _near("child", people, "weakly_suggestive", hits) or _near("young", people, "mood", hits)


def _with_young_ones(people: Sequence[Hit], words: Sequence[str]) -> list[Hit]:
    """The hits, with "young" taken for a child before a girl or boy, and dropped before a woman."""
    found = []
    for hit in people:
        after = words[hit.end : hit.end + BETWEEN] if hit.phrase == "young" else []
        if not CHILDREN.isdisjoint(after):
            found.append(
                Hit(
                    "child",
                    f"young {next(filter(CHILDREN.__contains__, after))}",
                    hit.start,
                    hit.end,
                )
            )
        elif GROWN_UP.isdisjoint(after):
            found.append(hit)
    return found


def _near(one: str, people: Sequence[Hit], other: str, hits: Sequence[Hit]) -> str:
    """The first two hits of two lists that stand near each other; empty if there are none."""
    last: dict[str, Hit] = {}
    both = [hit for hit in [*people, *hits] if hit.name in (one, other)]
    for hit in sorted(both, key=lambda hit: hit.start):
        last[hit.name] = hit
        if len(last) == 2 and hit.start - min(each.start for each in last.values()) <= NEAR:
            return f"{last[one].phrase} + {last[other].phrase}"
    return ""


def _counted(hits: list[Hit], words: Sequence[str]) -> list[Hit]:
    """The hits outside of harmless phrases."""
    harmless = _table(HARMLESS).find(words) if hits else []
    if not harmless:
        return hits
    # by place, where the longest harmless phrase ends that began there or before
    ends: dict[str, list[int]] = {name: [0] * len(words) for name in HARMLESS}
    for each in harmless:
        ends[each.name][each.start] = max(ends[each.name][each.start], each.end)
    innocent, rude = (list(accumulate(ends[name], max)) for name in HARMLESS)
    return [
        hit
        for hit in hits
        # inside of one, or with its last word in a longer one: "wet pussy" of "wet pussy cat"
        if hit.end > innocent[hit.start]
        and hit.end >= innocent[hit.end - 1]
        and (hit.name != "explicit" or hit.end > rude[hit.start])
    ]


def _first(hits: Sequence[Hit], name: str) -> str:
    return next((hit.phrase for hit in hits if hit.name == name), "")


def find_age(words: Sequence[str]) -> str:
    """An age below 18 as a text says it ("15 year old", "aged twelve"); empty without one."""
    if not any(word.isdigit() or word in NUMBERS for word in words):
        return ""
    line = " ".join(words)
    for pattern in AGES:
        for match in pattern.finditer(line):
            if _is_minor(match):
                return match[0]
    return ""


def _is_minor(match: re.Match[str]) -> bool:
    number = match["number"]
    age = NUMBERS[number] if number in NUMBERS else int((match["tens"] or "") + number)
    if UNDER.match(match[0]):
        return 10 <= age <= ADULT
    if GRADES.search(match[0]):
        return age <= 12
    return age < ADULT


@lru_cache
def _table(lists: Sequence[str]) -> PhraseTable:
    return PhraseTable({name: read_phrases(name) for name in lists})


def _may_matter(tokens: Sequence[str]) -> bool:
    """A fast test of words and pairs of words: False if no reading can hold a decisive phrase."""
    roles = list(map(_role, tokens))
    if DECIDES in roles or spells_out(tokens):
        return True
    heads = [place for place, role in enumerate(roles[:-1]) if role & BEFORE_LAST]
    return any(roles[place + 1] & LAST and _decide(*tokens[place : place + 2]) for place in heads)


@lru_cache(maxsize=50_000)
def _role(token: str) -> int:
    """DECIDES, or what a token may be in a decisive phrase of several words, in any reading."""
    if len(token) > LONGEST_KNOWN or "*" in token:
        return DECIDES
    table = _table(DECISIVE)
    found = list(readings(token))
    if any(map(table.may_hold, found)):
        return DECIDES
    return reduce(or_, (table.part(word) for words in found for word in words), 0)


@lru_cache(maxsize=50_000)
def _decide(first: str, second: str) -> bool:
    """Whether two tokens may be the end of a decisive phrase, in any reading."""
    return any(map(_table(DECISIVE).may_hold, readings(f"{first} {second}")))


def _torn_words(plain: str) -> list[str]:
    """The explicit words that stand in plain letters with a blank inside ("nak ed")."""
    explicit = _masked_lists()["explicit"]
    return [
        word
        for word in torn_words(plain)
        if len(word) >= 4 and word in explicit and word not in NAMES
    ]


def _with_hidden(found: Findings, hidden: Sequence[str], text: str) -> Findings:
    """`found`, completed by masked words (f*ck) and torn ones ("nak ed") that have one meaning."""
    sexual = next((word for word in hidden if word in _masked_lists()["explicit"]), "")
    rude = next((word for word in hidden if word in _masked_lists()["profanity"]), "")
    minors = found.minors
    if sexual and not minors:
        minors = _find_in([*next(readings(text)), sexual]).minors
    return Findings(minors, found.sexual or sexual, found.hate, found.profanity or rude)


@lru_cache(maxsize=1)
def _masked_lists() -> dict[str, frozenset[str]]:
    return {
        name: frozenset(_table(DECISIVE).single_words(name)) for name in ("explicit", "profanity")
    }


@lru_cache(maxsize=10_000)
def _unmasked(word: str) -> str:
    """The only word of the lists that a masked one can stand for; empty if there is none."""
    parts = [re.escape(part) for part in re.split(r"\*+", word)]
    if sum(map(len, parts)) < 2:
        return ""
    pattern = re.compile("[a-z]{1,3}".join(parts))
    for name in ("explicit", "profanity"):
        for candidate in sorted(_masked_lists()[name]):
            if len(candidate) >= 3 and pattern.fullmatch(candidate):
                return candidate
    return ""
