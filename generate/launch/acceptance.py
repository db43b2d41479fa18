"""Lines about --accept and its cost, for --status, the estimate and --preview.

line_of(counts["acceptance"])         # "41% of 320 images accepted; refused: shape > 0.9 59%"
draws_of(0.41, 8)                     # (2.4, 0.99): images a caption, share of captions with one
"""

from collections.abc import Sequence
from typing import Any

from common.expression import parts_of
from common.scores.histogram import bars, histogram
from common.scores.interface import Values
from generate.client.judge import Judge

SHOWN = 5  # of a score's quantiles, of LLMs and sources


def line_of(acceptance: dict[str, Any]) -> str:
    """One sentence of a data set's "acceptance" in the status document."""
    judged = acceptance["accepted"] + acceptance["rejected"]
    if not judged:
        return f"no image was judged yet: {acceptance['accept']}"
    parts = ", ".join(
        f"{part['text']} {part['refused'] / judged:.0%}" for part in acceptance["parts"]
    )
    refused = f"; refused: {parts}" if parts else ""
    given_up = acceptance["not_accepted"]
    rest = f"; {given_up:,} captions given up (not accepted)" if given_up else ""
    return f"{acceptance['accepted'] / judged:.0%} of {judged:,} images accepted{refused}{rest}"


def by_origin(counts: dict[str, Any], kind: str) -> str:
    """Images by "llm" or "source" of a data set in the status document; "" where none are counted.

    With --accept: the share that was accepted of those that were drawn.
    """
    rows = counts.get("origins", {}).get(kind, ())  # an older server sends none
    said = [
        f"{row['name']} {row['images']:,}"
        if row["share"] is None
        else f"{row['name']} {row['share']:.0%} of {row['images'] + row['rejected']:,}"
        for row in rows[:SHOWN]
    ]
    more = f", and {len(rows) - SHOWN} more" if len(rows) > SHOWN else ""
    return ", ".join(said) + more


def draws_of(share: float, tries: int) -> tuple[float, float]:
    """(images drawn for a caption on average, share of captions that end with an image)."""
    ends = 1 - (1 - share) ** tries
    return (ends / share if share else float(tries)), ends


def cost_line(share: float, tries: int, where: str) -> str:
    """What an acceptance of this share means for a run."""
    draws, ends = draws_of(share, tries)
    return (
        f"{share:.0%} of the images are accepted ({where}): {draws:.1f} drawn for each caption, "
        f"{ends:.1%} of the captions end with an image, if all are as difficult"
    )


def preview_lines(judge: Judge, values: Sequence[Values]) -> list[str]:
    """The distribution of a preview's values, by score and by condition, to choose thresholds."""
    lines = []
    for score in judge.scores:
        known = sorted(value for each in values if (value := each[score.name]) is not None)
        if not known:
            lines.append(f"{score.name}: no image has this score")
            continue
        at = [known[round(k * (len(known) - 1) / (SHOWN - 1))] for k in range(SHOWN)]
        without = f"; {len(values) - len(known)} without" if len(known) < len(values) else ""
        quantiles = "  ".join(f"{value:.4g}" for value in at)
        lines.append(f"{score.name}: {quantiles}  (least, quarter, middle, three quarters, most)")
        lines[-1] += without
        lines.append(f"    {known[0]:.4g} |{bars(histogram(score.name, known))}| {known[-1]:.4g}")
    if judge.accept:
        for part in parts_of(judge.accept):
            held = sum(part.holds(each) for each in values)
            lines.append(f"{part.text}: holds for {held} of {len(values)} images")
        share = sum(judge.accepts(each) for each in values) / len(values)
        lines.append(cost_line(share, judge.max_tries, f"of {len(values)} here"))
    return lines
