"""Find damaged texts of an LLM: half words, open ends, contradictions such as noon at midnight.

fault_of_form("a corgi on the, lamplight", "a corgi")       # "an open end: on the"
"""

import re
from itertools import pairwise

from common.subjects import is_strange
from common.texts import word_set
from generate.llms.chatter import QUOTED

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
ABBREVIATIONS = word_set(
    """dslr html hmm brr psst tsk shh pfft dvd cgi rgb hdr lcd vfx vhs mtv npc rpg fps dnd jpg png
    bbq"""
)
LONG = 5  # letters: shorter words without a vowel may be abbreviations
# A word of one or two letters that is none, or of three without a vowel; not "8k" or "35 mm". One
# may be an abbreviation; with two ("the lnd f res") a text is torn.
SHORT = re.compile(r"(?<!\S)(?<!\d )[a-z]{1,3}(?=,?(?:\s|$))")
KNOWN_SHORT = word_set(
    """a i o x am an as at be by do go he hi if in is it me my no of oh on or ox pi so to up us we
    ye la de di le el da du et al vs tv pc cd dj uk hd uv ai vr mr ms dr st mt cm mm km kg pm ad bc
    fx id ok yo ha ho ah eh um uh bw ui ux ft lb px ny sf xl ii iii iv vi vii ix ma pa re jr sr co
    hq cg gi dc gt mg wu hr"""
)
# one letter at the end of a clause is half a word ("on a red s, lamplight"), but for "plan b"
LONE = re.compile(r"([^\W_]+) ([b-hj-np-uwyz])(?=,|$)")
LETTERED = word_set("letter plan model type class grade vitamin group series size level gen and or")
# a model that falls into Chinese or Russian; what a sign says stands in quotation marks
OTHER_SCRIPT = re.compile("[\u0370-\u1dff\u2e80-\ud7ff]{3}")
VOWEL = re.compile("[aeiouy]")
# doubled they say nothing; "very very" and "bora bora" do
NEVER_TWICE = word_set("a an the of in on at to for from with and or is am are as by into")


def fault_of_form(text: str, prompt: str) -> str:
    """The damage in a text that its prompt does not have; empty if there is none."""
    known = set(WORD.findall(prompt.lower()))
    ends = {ending for ending, _ in _endings(prompt)}
    for ending, length in _endings(text):
        if ending not in ends and (ending in OPEN or (ending in SHORT_OPEN and length <= 4)):
            return f"an open end: {ending}"
    words = WORD.findall(text)
    fragments = [word for word in SHORT.findall(text) if word not in known and _is_fragment(word)]
    if len(fragments) > 1:
        return f"no words: {fragments[0]} {fragments[1]}"
    if OTHER_SCRIPT.search(QUOTED.sub("", text)) and not OTHER_SCRIPT.search(prompt):
        return "another script"
    for before, letter in LONE.findall(text):
        if letter not in known and before.lower() not in LETTERED:
            return f"no word: {letter}"
    for word, following in pairwise(words):
        if word == following and word in NEVER_TWICE:
            return f"twice: {word}"
    for clause in CLAUSE.split(text):
        parts = clause.split()
        for place in range(len(parts) - 5):
            if parts[place : place + 3] == parts[place + 3 : place + 6]:
                return f"twice: {' '.join(parts[place : place + 3])}"
    for word in words:
        stuck = STUCK.fullmatch(word) and word not in WORDS
        strange = len(word) >= LONG and is_strange(word) and word not in ABBREVIATIONS
        if (stuck or strange) and word not in known:
            return f"no word: {word}"
    return ""


def _is_fragment(word: str) -> bool:
    if word in KNOWN_SHORT or word in ABBREVIATIONS:
        return False
    return len(word) < 3 or not VOWEL.search(word)


def _endings(text: str) -> list[tuple[str, int]]:
    """(the last word, how many words) of each clause."""
    clauses = (WORD.findall(clause.lower()) for clause in CLAUSE.split(text))
    return [(words[-1], len(words)) for words in clauses if words]
