"""Makes known_words.txt.xz: which languages know a word, and how well.

    pip install wordfreq==3.1.1 simplemma==2.0.0
    python common/make_known_words.py

One line a word: the word, a tab, the level of English, and code and level of each other language
that knows it. A level is a hexadecimal digit: half decades of the word's frequency above 1e-7.
Words as frequent in many languages are names and words of all the world ("leonardo", "yang"): they
say nothing, so English gets their level. A word that English has, too, says little, however
often another language uses it ("elle"). Words that are in no dictionary are mostly names
("bambang"): their level is lower.

The frequencies are those of wordfreq (https://github.com/rspeer/wordfreq; Robyn Speer), which may
be redistributed under CC-BY-SA-4.0, and so may the list made of them. Its sources: Wikipedia,
OpenSubtitles 2018, SUBTLEX (Marc Brysbaert and others), Google Books Ngrams, ParaCrawl, the Leeds
Internet Corpus, and others named in its README. simplemma (MIT) brings the dictionaries.
"""

import lzma
import math
import sys
from collections import defaultdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.known_words import LETTERS, LIST
from common.texts import word_set

LANGUAGES = sorted(word_set("cs da de es fi fr hu id it nb nl pl pt ro sh sv tr"))
DICTIONARY = {"sh": "hbs"}  # simplemma's code, where it is another
FEWEST = 10**-5.6  # frequency of the rarest foreign words that are kept
LEAST = 1e-7  # the frequency that a level counts from; rarer English words are left out
EVERYWHERE = 6  # a word belongs to all the world if so many languages know it
FAMILIAR = 3  # from this level of English on a word has at most
MORE = 2  # levels more in another language
NAME = {"id": 1}  # what a level is lower by without a dictionary; the Indonesian one is small
ANY_NAME = 2
HIGHEST = 15
SPELLED = str.maketrans("şţ", "șț")  # wordfreq's Romanian has cedillas


def main() -> None:
    words: defaultdict[str, dict[str, int]] = defaultdict(dict)
    lower: dict[str, dict[str, int]] = defaultdict(dict)  # as words, without names
    for language in LANGUAGES:
        dictionary = dictionary_of(language)
        for word, height in levels_of(language, "small").items():
            name = 0 if word in dictionary else NAME.get(language, ANY_NAME)
            words[word][language] = height
            lower[word][language] = height - name
    english = {word: height for word, height in levels_of("en", "large").items() if height > 0}
    lines = []
    for word in sorted(words.keys() | english):
        everywhere = sorted(words[word].values(), reverse=True)[EVERYWHERE - 1 : EVERYWHERE]
        first = max([english.get(word, 0), *everywhere])
        most = first + MORE if first >= FAMILIAR else HIGHEST
        others = {each: min(height, most) for each, height in lower[word].items() if height > 0}
        lines.append(f"{word}\t{first:x}" + "".join(f"{e}{others[e]:x}" for e in others))
    LIST.write_bytes(lzma.compress("\n".join(lines).encode(), preset=9 | lzma.PRESET_EXTREME))
    print(f"{len(lines):,} words, {LIST.stat().st_size:,} bytes")


def levels_of(language: str, size: str) -> dict[str, int]:
    """{word: level} of the words in Latin letters that a language knows."""
    from wordfreq import get_frequency_dict  # installed for this script alone, as simplemma is

    found = {}
    for word, frequency in get_frequency_dict(language, size).items():
        if LETTERS.fullmatch(word) and (language == "en" or frequency >= FEWEST):
            written = word.translate(SPELLED) if language == "ro" else word
            found[written] = round(2 * math.log10(frequency / LEAST))
    return found


def dictionary_of(language: str) -> set[str]:
    """The case-folded words of a language's dictionary."""
    from simplemma.strategies.dictionaries.dictionary_factory import DefaultDictionaryFactory

    code = DICTIONARY.get(language, language)
    factory = DefaultDictionaryFactory(cache_max_size=1)  # Polish alone takes 400 MB
    entries = factory.get_dictionary(code)
    return {word.casefold() for pair in entries.items() for word in pair}


if __name__ == "__main__":
    main()
