"""Clean prompts and write them: what the five processors share.

>>> clean("a caf&eacute; in the style of Simon St\u00c3\u00a5lenhag, 8 k --ar 16:9 ")
('a caf\u00e9 in the style of Simon St\u00e5lenhag, 8k', ['blanks', 'entities', 'mojibake', 'spacing', 'syntax: flag'])
"""

import contextlib
import html
import json
import os
import re
import signal
import sys
import unicodedata
from collections import Counter
from pathlib import Path

from combine_prompts import spacing, syntax
from common.command_line import Options
from common.files import CHECKOUT

FOLDER = CHECKOUT / "prompts"
LONGEST = (
    20_000  # characters; the longest real prompt has 1,951, so a longer "prompt" is a broken file
)
LOST = "\ufffd"  # stands where a letter could not be decoded

ENTITY = re.compile(r"&(?:#\d{1,7};?|#[xX][0-9a-fA-F]{1,6};?|[A-Za-z][A-Za-z0-9]{1,31};)")
NESTED = re.compile(r"&(?:amp;)+", re.I)
WIDE_COMMA = re.compile(r"\uff0c(?=[^\W\d])")
JOINERS = "\u200c\u200d"
EMOJI = re.compile("[\u00a9\u00ae\u203c-\u3299\U0001f000-\U0001faff\U000e0020-\U000e007f\ufe0f]")


def clean(text, ascii=False):
    """Return (cleaned text, sorted names of the rules that changed it); meaning, letters and accents are kept.

    ASCII-only with `ascii`: transliterated, never dropped. Any Unicode string is taken; cleaning twice changes nothing more; no control
    character is left. Undecodable characters come back as U+FFFD (the processors drop such prompts).
    """
    rules = set()
    while True:
        before = text
        for name, rule in RULES:
            changed = rule(text)
            if changed != text:
                rules.add(name)
                text = changed
        text, struck = syntax.strip(text)
        rules.update(f"syntax: {name}" for name in struck)
        folded = " ".join(text.split())
        if folded != text:
            rules.add("blanks")
        text = spacing.join(folded)
        if text != folded:
            rules.add("spacing")
        if ascii and not text.isascii():
            rules.add("ascii")
            text = transliterate(text)
        if text == before:
            return text, sorted(rules)


def entities(text):
    """HTML entities, to the end: `&amp;amp;` is `&`. Without a semicolon only numbers count: `b&w;` and `&copycat` are words."""
    if "&" not in text:
        return text
    while (
        shorter := ENTITY.sub(
            lambda m: html.unescape(m[0]), NESTED.sub("&", text) if NESTED.search(text) else text
        )
    ) != text:
        text = shorter
    return text


def mojibake(text):
    """ftfy: mojibake, full-width letters, ligatures, curly quotes; then NFC. A full-width comma holds its own blank."""
    if text.isascii():
        return text
    import ftfy

    text = WIDE_COMMA.sub("\uff0c ", text)
    return ftfy.fix_text(
        text, unescape_html=False, remove_terminal_escapes=False, normalization="NFC"
    )


def invisible(text):
    """Control and format characters go; joiners and variation selectors stay where they join letters or shape emoji."""
    if text.isascii() and text.isprintable():
        return text
    kept = []
    for i, c in enumerate(text):
        category = unicodedata.category(c)
        if c.isspace():
            pass  # any kind of blank and line end: folded later
        elif category in ("Cc", "Co", "Cs"):
            c = ""
        elif c in JOINERS:
            around = text[i - 1 : i] + text[i + 1 : i + 2]
            c = c if len(around) == 2 and all(_joins(a) for a in around) else ""
        elif "\ufe00" <= c <= "\ufe0f" or "\U000e0100" <= c <= "\U000e01ef":
            c = c if i and _takes_selector(text[i - 1]) else ""
        elif "\U000e0020" <= c <= "\U000e007f":  # the flags of England, Scotland, Wales
            c = (
                c
                if kept and (kept[-1] == "\U0001f3f4" or "\U000e0020" <= kept[-1] <= "\U000e007f")
                else ""
            )
        elif category == "Cf" and not (
            "\u0600" <= c <= "\u0605" or c in "\u06dd\u070f\u08e2\U000110bd"
        ):
            c = ""
        if c:
            kept.append(c)
    return "".join(kept)


def _joins(c):
    """Whether a zero-width joiner beside `c` does something: scripts that join letters, and emoji. Between Latin letters it is dirt."""
    return bool(EMOJI.match(c)) or (c > "\u0590" and unicodedata.category(c)[0] in "LM")


def _takes_selector(c):
    return (
        c in "#*0123456789"
        or bool(EMOJI.match(c))
        or unicodedata.category(c) in ("So", "Sm", "Lo", "Po", "Sk")
    )


def transliterate(text):
    from anyascii import anyascii

    letters = [(c, anyascii(c)) for c in text]
    return "".join(
        "" if EMOJI.match(c) and a[:1] + a[-1:] == "::" else a for c, a in letters
    )  # anyascii writes :bridge_at_night:


FOLDED_AWAY = re.compile("[^\\w\u2600-\u27bf\U0001f000-\U0001faff]+|_+")
RULES = [("mojibake", mojibake), ("entities", entities), ("invisible", invisible)]


def fold(text):
    """The key of exact duplicates: case, punctuation and blanks folded; letters, digits and emoji count."""
    text = text if text.isascii() else unicodedata.normalize("NFKC", text)
    return " ".join(FOLDED_AWAY.sub(" ", text.casefold()).split())


# ----------------------------------------------------------------------------- what every processor does


def parser(doc, output):
    signal.signal(
        signal.SIGINT,
        lambda *_: sys.exit(f"{Path(sys.argv[0]).stem}: interrupted; nothing was written"),
    )
    options = Options(doc)
    options.add_argument(
        "--input",
        nargs="+",
        metavar="FILE_OR_FOLDER",
        help="local files (default: fetched from the source's public home)",
    )
    options.add_argument(
        "--output",
        type=Path,
        default=FOLDER / output,
        metavar="FILE.json",
        help="default: %(default)s",
    )
    options.add_argument(
        "--revision", default="main", help="branch, tag or commit to fetch (default: %(default)s)"
    )
    options.flag("--ascii", "transliterate to ASCII (å -> a); letters are never dropped")
    return options


def local_files(inputs, patterns):
    """The files among `inputs` (files, or folders searched for `patterns` in their order). Returns (files, problems)."""
    files, problems = [], []
    for given in map(Path, inputs):
        if given.is_dir():
            for pattern in patterns:
                found = sorted(path for path in given.rglob(pattern) if path.is_file())
                files += [path for path in found if path not in files]
                if not found:
                    problems.append(f"{given}: no {pattern} in this folder")
        elif given.exists():
            files.append(given)
        else:
            problems.append(f"{given}: no such file or folder")
    return files, problems


def process(args, files, problems, read, repair=None):
    """Read, clean, deduplicate and publish one source; print the table; return the exit status (0, or 3 with rejects named on stderr).

    `read(path)` yields (row number, text, bytes or None); `repair(text)` returns (text or None to drop, name of the rule or None).
    """
    script, problems = Path(sys.argv[0]).stem, list(problems)
    read_rows, changed, dropped, bad_rows = 0, Counter(), Counter(), Counter()
    kept, raw_seen = {}, set()
    for path in files:
        for row, text in rows(path, read, problems):
            read_rows += 1
            if why := _unreadable(text):
                dropped[why] += 1
                bad_rows[why] += text is not None
                if text is not None and bad_rows[why] <= 3:
                    problems.append(f"{path}: row {row}: {why}")
                continue
            text = text.decode() if isinstance(text, bytes) else text
            if text in raw_seen:
                dropped["duplicate"] += 1
                continue
            raw_seen.add(text)
            cleaned, reason, rules = clean_row(text, args.ascii, repair)
            changed.update(rules)
            if reason is None and cleaned in kept:
                reason = "duplicate after cleaning"
            if reason:
                dropped[reason] += 1
            else:
                kept[cleaned] = None
    problems += [f"{count - 3:,} more rows: {why}" for why, count in bad_rows.items() if count > 3]
    if not kept:
        raise SystemExit(
            f"{script}: no prompts to write" + "".join(f"; {problem}" for problem in problems)
        )
    publish(args.output, json.dumps(list(kept), ensure_ascii=False, indent=0) + "\n")
    table(
        [("read", read_rows)]
        + [(f"changed: {rule}", n) for rule, n in sorted(changed.items())]
        + [(f"dropped: {why}", n) for why, n in sorted(dropped.items())]
        + [("kept", len(kept))]
    )
    print(f"wrote {args.output}")
    for problem in problems:
        print(f"{script}: {problem}", file=sys.stderr)
    return 3 if problems else 0


def rows(path, read, problems):
    """`read(path)`'s rows; what a library says of a broken file goes to `problems`, and the next file can go on."""
    from tqdm import tqdm

    row = None
    try:
        for row, text in tqdm(
            read(path), desc=path.name, unit=" rows", disable=None, mininterval=1, leave=False
        ):
            yield row, text
    except Exception as error:  # OSError, ValueError, sqlite3.Error, csv.Error, ArrowException
        if isinstance(error, (MemoryError, ImportError)):
            raise
        problems.append(
            f"{path}: {'cannot be read' if row is None else f'stopped after row {row}'}: {one_line(error)}"
        )


def clean_row(text, ascii=False, repair=None):
    """Return (cleaned, reason to drop or None, rules)."""
    rules = []
    if repair:
        text, rule = repair(mojibake(text))
        rules = [rule] if rule else []
        if text is None:
            return "", rule, []
    cleaned, more = clean(text, ascii)
    reason = None
    if LOST in cleaned:
        reason = "undecodable character"
    elif not any(c.isalnum() or EMOJI.match(c) for c in cleaned):
        reason = "empty after cleaning" if text.strip() else "empty"
    return cleaned, reason, rules + more


def _unreadable(text):
    if text is None:
        return "no prompt (null)"
    if not isinstance(text, (str, bytes)):
        return f"not a string ({type(text).__name__})"
    if len(text) > LONGEST:
        return f"longer than {LONGEST:,} characters"
    if isinstance(text, bytes):
        try:
            text.decode()
        except UnicodeDecodeError:
            return "not UTF-8"
    return None


def json_list(data):
    """The items of a JSON list, from bytes. Raises ValueError saying what it is instead."""
    try:
        found = json.loads(data)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"not UTF-8 (line {line}, byte {error.start:,})")
    except ValueError as error:
        raise ValueError(f"not JSON: {one_line(error)}")
    if not isinstance(found, list):
        raise ValueError(f"not a JSON list of prompts but a {type(found).__name__}")
    return found


def table(rows):
    width = max(len(name) for name, _ in rows)
    for name, count in rows:
        print(f"  {name:<{width}}  {count:>12,}")


def publish(path, text):
    """Write `text` as UTF-8 to `path`: all of it or nothing (temporary name in the same folder, fsync, rename)."""
    path = Path(path)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(draft, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise SystemExit(f"{Path(sys.argv[0]).stem}: cannot write {path}: {one_line(error)}")


def one_line(error):
    return " ".join(str(error).split())[:300] or type(error).__name__
