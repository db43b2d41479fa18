"""What a language model tears or says against itself: half words, open ends, noon at midnight.

fault_of_form("a corgi on the, lamplight", "a corgi")       # "an open end: on the"
"""

import re

from common.subjects import is_strange
from common.texts import word_set

CLAUSE = re.compile(r"[,;:.!?|()]+(?:\s|$)")
WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
# A clause that ends with one of these goes on. Not "in", "on", "over", "her": "with the lights on".
OPEN = word_set(
    """a an the of with from at and or but as than into onto upon between among beside toward
    towards beneath amid its my our your their very which whose who where while"""
)
SHORT_OPEN = word_set("to for by in")  # these may end a clause of a sentence, none of two words
# a function word with a letter stuck to it: "in the top hat on thec"
STUCK = re.compile(r"(?:the|with|and|from|of)[a-z]")
WORDS = word_set("then them they thee withe withy andy off oft")
ABBREVIATIONS = word_set("dslr html hmm brr psst tsk shh pfft dvd cgi rgb hdr")
LONG = 5  # letters: shorter words without a vowel may be abbreviations


def fault_of_form(text: str, prompt: str) -> str:
    """What is torn in a text and is not so in the prompt; empty if nothing."""
    known = set(WORD.findall(prompt.lower()))
    ends = {ending for ending, _ in _endings(prompt)}
    for ending, length in _endings(text):
        if ending not in ends and (ending in OPEN or (ending in SHORT_OPEN and length <= 4)):
            return f"an open end: {ending}"
    for word in WORD.findall(text):
        stuck = STUCK.fullmatch(word) and word not in WORDS
        strange = len(word) >= LONG and is_strange(word) and word not in ABBREVIATIONS
        if (stuck or strange) and word not in known:
            return f"no word: {word}"
    return ""


def _endings(text: str) -> list[tuple[str, int]]:
    """(the last word, how many words) of each clause."""
    clauses = (WORD.findall(clause.lower()) for clause in CLAUSE.split(text))
    return [(words[-1], len(words)) for words in clauses if words]
