"""Find prompts that have no subject (only names and style words) or are gibberish.

>>> find_no_subject("artwork by greg rutkowski, trending on artstation, 8k")
'names and style alone'
>>> find_gibberish("gkp hghdbif thr hfu yjdu ndjthrbptoofjpuf")
'gkp'
"""

import re
from functools import lru_cache

from common.texts import word_set

CLAUSE = re.compile(r"[,;|.!]+(?:\s|$)")
WORD = re.compile(r"[^\W_]+(?:['\u2019-][^\W_]+)*")
STYLE = word_set(
    """a an the and & in on at of style very highly hyper ultra super extremely insanely most
    art arts artwork artworks piece print painting painted drawing drawn illustration illustrated
    photo photograph photography picture image sketch digital concept matte oil acrylic watercolor
    watercolour pencil ink pastel charcoal canvas render rendered rendering octane unreal engine
    vray redshift blender cinema4d zbrush detailed detail details intricate elegant smooth sharp
    focus realistic photorealistic hyperrealistic hyperdetailed realism beautiful stunning amazing
    masterpiece award winning award-winning professional cinematic dramatic volumetric soft
    light lighting lit depth field bokeh high low quality resolution hd uhd hdr 4k 8k 16k 2d 3d 5
    trending artstation artstationhq deviantart pixiv cgsociety behance dribbble pinterest
    instagram flickr unsplash shutterstock featured popular wallpaper hq hd full color colour colors
    colours vivid vibrant by untitled mixed media mural paint modern contemporary"""
)
WHOSE = re.compile(r"\bby |\bin (?:the )?style of ", re.I)  # what follows is a name
EMOJI = re.compile("[\u2600-\u27bf\U0001f000-\U0001faff]")
MOST_NAMES = 8  # words of a name: longer clauses are more than that
# no artist's name begins with these: there "by" means where or how ("by the sea", "by hand")
NO_NAME = word_set("a an the his her its their my our your this that hand day night candlelight")
JOINED = word_set("and & by of de la le van von der den di da du el y jr sr")

VOWEL = re.compile(r"[aeiouy]")
CONSONANTS = re.compile(r"[bcdfghjklmnpqrstvwxz]{5}")
STRANGE_SHARE = 0.5  # of the words are no words
WORDS_READ = 60


def find_no_subject(text: str) -> str:
    """Why a prompt shows nothing; empty if it says what the picture is of."""
    numbers = text.split()
    if len(numbers) > 1 and "".join(numbers).isdigit():
        return "numbers alone"
    first = CLAUSE.split(text, maxsplit=1)[0]  # in most prompts it has the subject
    if first.strip() and not _is_style(first):
        return ""
    words = WORD.findall(text.lower())
    if len(words) > WORDS_READ or not words:
        return ""
    clauses = [clause for clause in CLAUSE.split(text) if clause.strip()]
    if all(_is_style(clause) for clause in clauses):
        return "names and style alone"
    return ""


def _is_style(clause: str) -> bool:
    """Whether a clause names a style, a site, or whose work it is."""
    whose = WHOSE.search(clause)
    words = WORD.findall(clause[: whose.start() if whose else None].lower())
    if any(word not in STYLE for word in words) or EMOJI.search(clause):
        return False
    if not whose:
        return bool(words)
    capitals = clause[whose.end() :].split()
    said = [word.lower() for word in capitals]
    return (
        0 < len(said) <= MOST_NAMES
        and said[0] not in NO_NAME
        and not any(word in STYLE - JOINED for word in said)
        and (
            len(said) <= 3 or all(word[0].isupper() or word.lower() in JOINED for word in capitals)
        )
    )


def find_gibberish(text: str) -> str:
    """The first word of a text that was typed at random; empty if it holds words."""
    words = text.split()[:WORDS_READ]
    strange = [word for word in words if is_strange(word)]
    if len(strange) >= 3 and len(strange) >= STRANGE_SHARE * len(words):
        return strange[0]
    return ""


@lru_cache(maxsize=50_000)
def is_strange(word: str) -> bool:
    """Whether a word is unpronounceable: lower case, no vowel or five consonants in a row."""
    if len(word) < 3 or not word.isascii() or not word.islower() or not word.isalpha():
        return False
    spoken = word.replace("ght", "t").replace("sch", "s")  # lightship, borscht
    return not VOWEL.search(word) or bool(CONSONANTS.search(spoken))
