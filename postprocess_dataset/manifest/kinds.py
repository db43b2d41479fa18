"""The kinds of damage: what each is, what to do about it; and what was found of each.

found = Findings()
found.add("torn", "HPDv2/000012/12345_3.jpg", "ends after 4,096 bytes")
found.counts["torn"], found.document(), found.lines()
"""

import shlex
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

EXAMPLES = 5  # of a kind; all are counted
DAMAGED = "damaged"  # something is lost, or two records disagree
UNSAFE = "unsafe"  # a text that nobody should publish
UNLICENSED = "unlicensed"
PRIVATE = "private"
RUN_AGAIN = "run generate_images.py again: what is missing is generated"
REDO = "generate_images.py --redo generates it again; then convert again"
MAKE_TABLE = "--repair, or convert_json_to_parquet.py --rebuild"
MAKE_TARS = "--repair, or remove the shard and run convert_parquet_to_wds.py again"


@dataclass(frozen=True)
class Kind:
    """what: in a sentence. remedy: what the user does. group: DAMAGED, UNSAFE, …"""

    what: str
    remedy: str
    group: str = DAMAGED


KINDS = {
    "missing": Kind("a sample or a file that should be there is not", f"{RUN_AGAIN}; --repair"),
    "doubled": Kind("a sample is there twice", f"in the table: {MAKE_TABLE}; in tars: {MAKE_TARS}"),
    "torn": Kind("a file is cut or cannot be decoded", f"image or JSON: {REDO}; mark: --repair"),
    "foreign": Kind("a file that does not belong here", "look at it, and move it away"),
    "renamed": Kind("a sample lies under the name of another", "rename it back"),
    "swapped_caption": Kind(
        "a record has another caption, or other facts, than the image carries",
        f"JSON: {REDO}; table: {MAKE_TABLE}",
    ),
    "wrong_hash": Kind("bytes are not those that were recorded", REDO),
    "wrong_order": Kind("rows or samples are not in their order", "--repair"),
    "unreadable_shard": Kind("a shard of the table or a tar cannot be read", "--repair"),
    "index_without_shard": Kind("an index and the shards disagree", "--repair"),
    "row_without_image": Kind(
        "a row of the table has no sample in the folder",
        "if the sample is lost, bring it back from a backup or the tars; if you removed it, "
        "convert_json_to_parquet.py --update",
    ),
    "caption_differs": Kind(
        "an image was made of another text than its .prompts says", "keep one of both: --redo"
    ),
    "wrong_size": Kind("an image has other pixels than its JSON says", REDO),
    "validation_leak": Kind(
        "a caption is, quotes or rewrites a prompt of the validation set",
        "leave the prompt out (combine.py --exclude), or publish without it",
        UNSAFE,
    ),
    "unsafe_text": Kind("sexual or hateful text", "leave the prompt out (combine.py)", UNSAFE),
    "duplicate_image": Kind("two samples show the very same picture", "look at both; --redo one"),
    "licence_unknown": Kind(
        "the terms of a source, an LLM or a model are not known",
        "--licence NAME=LICENCE; combine.py --publishable leaves such prompts out",
        UNLICENSED,
    ),
    "private_field": Kind(
        "a host name, a job, an absolute path or an image's foreign metadata in what is published",
        "in rows: make_release_forms.py leaves them out; in images: --redo generates them again",
        PRIVATE,
    ),
    "nan_score": Kind("a score is no number", "score these images again"),
    "not_accepted": Kind(
        "an image whose own scores do not fulfil the expression that its JSON names, or a rejected "
        "one whose scores do",
        f"{REDO}; or leave it out: convert_parquet_to_wds.py --where",
    ),
    "card_counts": Kind("the card states other counts", "make the card again"),
    "ledger_differs": Kind(
        "the job server's ledger and the folder disagree",
        "start image_server.py: it compares every folder and reopens what is missing",
    ),
}


def licence_option(name: str) -> str:
    """The option that states a licence, for a shell: others have chosen the name."""
    joint = "=" if name.startswith("-") else " "  # else it would be taken for an option
    return f"--licence{joint}{shlex.quote(f'{name}=LICENCE')}"


@dataclass
class Findings:
    """How many of each kind, the first of them, and what --repair would mend (repair.py).

    names: the first ones without known terms, as --licence takes them.
    """

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)
    entries: Counter[str] = field(default_factory=Counter)  # of a kind; one may count for many
    mends: set[str] = field(default_factory=set)
    names: list[str] = field(default_factory=list)

    def add(self, kind: str, where: str, why: str = "", count: int = 1, mend: str = "") -> None:
        """One more, or `count` more of the same; mend: what would set it right."""
        assert kind in KINDS, kind
        self.counts[kind] += count
        self.entries[kind] += 1
        if mend:
            self.mends.add(mend)
        shown = self.examples.setdefault(kind, [])
        if len(shown) < EXAMPLES:
            times = f" ({count:,})" if count > 1 else ""
            shown.append(f"{where}{times}: {why}" if why else f"{where}{times}")

    def merge(self, other: "Findings") -> None:
        """What was found elsewhere, after what is here."""
        self.counts += other.counts
        self.entries += other.entries
        self.mends |= other.mends
        self.names += other.names[: EXAMPLES - len(self.names)]
        for kind, examples in other.examples.items():
            shown = self.examples.setdefault(kind, [])
            shown += examples[: EXAMPLES - len(shown)]

    def add_unlicensed(self, what: str, name: str, why: str, count: int) -> None:
        """`count` samples of a source, an LLM or a model whose terms are not known."""
        self.add("licence_unknown", what, f"{why}: {licence_option(name)}", count)
        if len(self.names) < EXAMPLES:
            self.names.append(name)

    def of_group(self, group: str) -> list[str]:
        """The kinds of a group that were found."""
        return [name for name, kind in KINDS.items() if kind.group == group and self.counts[name]]

    def document(self, allowed: Collection[str] = ()) -> dict[str, Any]:
        """Each kind that was found, for a machine."""
        found: dict[str, Any] = {
            name: {
                "count": self.counts[name],
                "what": kind.what,
                "group": kind.group,
                "allowed": name in allowed,
                "remedy": kind.remedy,
                "examples": self.examples[name],
            }
            for name, kind in KINDS.items()
            if self.counts[name]
        }
        if self.names:
            found["licence_unknown"]["names"] = self.names
        return found

    def lines(self, allowed: Collection[str] = (), remedy: str = "") -> Iterable[str]:
        """Each kind that was found, for a person: count, first examples, remedy.

        remedy: the one for all damage, in place of the kind's own.
        """
        for name, kind in KINDS.items():
            count = self.counts[name]
            if not count:
                continue
            yield f"{name}: {count:,} ({kind.what}{'; allowed' if name in allowed else ''})"
            yield from (f"    {example}" for example in self.examples[name])
            if self.entries[name] > EXAMPLES:
                yield f"    … {self.entries[name] - EXAMPLES:,} more"
            if name not in allowed:
                own = not remedy or kind.group != DAMAGED
                yield f"    what to do: {kind.remedy if own else remedy}"
