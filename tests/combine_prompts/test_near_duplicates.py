"""Near duplicates: what is a twin, what is not; the sketches against datasketch."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from combine_prompts import near_duplicates
from common.texts import fold

ROOT = Path(__file__).resolve().parent.parent.parent
TAIL = (
    ", intricate, highly detailed, digital painting, artstation, concept art, smooth, sharp focus, "
    "illustration, art by a famous painter, 8k, trending, soft light"
)


def find(prompts):
    return near_duplicates.find(prompts, [fold(prompt) for prompt in prompts])


@pytest.mark.parametrize(
    "a, b",
    [
        (
            "a lighthouse on a cliff in a storm with tall waves, oil painting",
            "A lighthouse on a cliff in a storm with tall waves, oil painting, trending",
        ),
        (
            "a road next to warehouses and a hill behind it with a radio tower on top",
            "a road next to warehouses and a hill behind it with a radio tower on top, red tint",
        ),
        ("portrait of a queen" + TAIL * 2, "a portrait of the queens" + TAIL * 2),
        ("an old lighthouse" + TAIL, "an old lighthose" + TAIL),
        (
            "a lighthouse in a storm, oil painting, dramatic light, artstation",
            "a lighthouse in a storm, artstation, dramatic light, oil painting",
        ),
        ("a small lighthouse on a cliff at dawn", "a small lighthuose on a cliff at dawn"),
        (
            "Artistic depiction of ghosts and the paranormal",
            "An artistic depiction of ghosts and the paranormal",
        ),
    ],
)
def test_twins(a, b):
    assert set(find([a, "something else entirely, in blue", b])) == {2} and find([b, a])[1][0] == 0


@pytest.mark.parametrize(
    "a, b",
    [
        ("portrait of a queen" + TAIL, "portrait of a toad" + TAIL),
        (
            "beautiful evil fantasy character" + TAIL + ", cyborg",
            "beautiful evil fantasy character" + TAIL + ", demon",
        ),
        (
            "portrait of a symmetrical girl with long flowing hair, blue" + TAIL,
            "portrait of a symmetrical girl with long flowing hair, red" + TAIL,
        ),
        (
            "\U0001f34e\U0001f333, style artstation, octane render, unreal engine",
            "\U0001f6a2\U0001f409, style artstation, octane render, unreal engine",
        ),
        (
            "a red circle above a blue square on a green background",
            "a blue square above a red circle on a green background",
        ),
        (
            "two red cups on a large wooden table in the old kitchen" + TAIL,
            "three red cups on a large wooden table in the old kitchen" + TAIL,
        ),
        ("a red car beside a blue house" + TAIL * 2, "a blue car beside a red house" + TAIL * 2),
        ("a fox", "a hare"),
        ("a photo of a fox in the snow" + TAIL, "a painting of a fox in the snow" + TAIL),
        ("a photo of an old harbor at dawn in fog", "a drawing of an old harbor at dawn in fog"),
        ("a red house on a hill in the rain", "a red horse on a hill in the rain"),
        ("a cat chases a dog over the lawn", "a dog chases a cat over the lawn"),
        ("a lighthouse in a storm, 3 ships", "a lighthouse in a storm, 4 ships"),
        ("a dragon reading a book" + TAIL, "a dragon reading a book"),
    ],
)
def test_no_twins(a, b):
    assert find([a, b]) == {}


def test_the_first_of_many_stays():
    prompts = [
        f"a lighthouse on a cliff in a storm with tall waves, oil painting, artist {'x' * i}"
        for i in range(10)
    ]
    assert find(prompts) == {} or all(
        first < position for position, (first, _) in find(prompts).items()
    )
    same = ["a lighthouse on a cliff in a storm with tall waves" + " !" * i for i in range(10)]
    assert {position: first for position, (first, _) in find(same).items()} == {
        i: 0 for i in range(1, 10)
    }


WORDS = [
    f"{a}{b}"
    for a in ("fox", "cliff", "storm", "tall", "wave", "lamp", "king")
    for b in ("", "es", "ing", "ed")
]


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.lists(st.sampled_from(WORDS), min_size=8, max_size=20).map(" ".join),
        min_size=2,
        max_size=30,
        unique=True,
    ),
    st.randoms(use_true_random=False),
)
def test_every_twin_is_one_and_order_decides_nothing_else(prompts, rng):
    prompts += [f"{prompt} {rng.choice(WORDS)}" for prompt in prompts[:5]]
    for position, (first, similar) in find(prompts).items():
        a, b = (near_duplicates.shingles(fold(prompts[i]).split()) for i in (position, first))
        words = sorted(fold(prompts[position]).split())
        if words == sorted(fold(prompts[first]).split()):
            continue
        assert first < position and similar == len(a & b) / len(a | b) >= near_duplicates.THRESHOLD


def test_bands_find_what_datasketch_finds():
    """rensa's sketches in our bands against datasketch's LSH of the same bands and rows.

    Pairs of known similarity are found as often.
    """
    from datasketch import MinHash, MinHashLSH

    rng = np.random.default_rng(3)
    vocabulary = [f"w{i}" for i in range(4000)]
    pairs = []
    for _ in range(300):
        words = list(rng.choice(vocabulary, 24))
        other = list(words)
        other[-int(rng.integers(1, 4))] = "changed"
        pairs.append((" ".join(words), " ".join(other)))
    flat = [text for pair in pairs for text in pair]
    keys, _ = near_duplicates.sketches(flat)
    ours = [bool((keys[2 * i] == keys[2 * i + 1]).any()) for i in range(len(pairs))]
    lsh = MinHashLSH(num_perm=126, params=(near_duplicates.BANDS, near_duplicates.ROWS))
    theirs = []
    for i, (a, b) in enumerate(pairs):
        sketches = []
        for text in (a, b):
            sketch = MinHash(num_perm=126)
            sketch.update_batch(
                [shingle.encode() for shingle in near_duplicates.shingles(text.split())]
            )
            sketches.append(sketch)
        lsh.insert(i, sketches[0])
        theirs.append(i in lsh.query(sketches[1]))
    assert sum(ours) >= 0.97 * len(pairs) and sum(theirs) >= 0.97 * len(
        pairs
    )  # all pairs are at 0.76 and more
    unrelated = sum(bool((keys[2 * i] == keys[2 * j]).any()) for i in range(100) for j in range(i))
    assert unrelated == 0


def test_sketches_do_not_depend_on_the_process():
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); "
        "from combine_prompts import near_duplicates as n; "
        "print(n.sketches(['a red fox in the snow at dawn', 'b', ''])[0][:, :3].tolist())"
    )
    seen = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(seen) == 1


def test_a_tail_shared_by_thousands_stays_cheap():
    """The work is bounded by BUCKET per band, not by how many share the tail."""
    prompts = [f"portrait of person{i:05d}" + TAIL for i in range(600)]
    asked = 0
    original = near_duplicates.jaccard

    def counted(a, b):
        nonlocal asked
        asked += 1
        return original(a, b)

    near_duplicates.jaccard = counted
    try:
        assert find(prompts) == {}
    finally:
        near_duplicates.jaccard = original
    assert asked <= len(prompts) * near_duplicates.BUCKET * near_duplicates.BANDS / 2
