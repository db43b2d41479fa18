"""Whatever happens to whichever file of a data set: it is found, and what is not touched is not."""

import random
import shutil

import pytest

from tests.postprocess_dataset.verified import kinds, make, verify

FILES = ("HPDv2/*/*.jpg", "HPDv2/*/*.json", "HPDv2/*/*.prompts", "tars/*.tar", "t.parquet")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return make(tmp_path_factory.mktemp("whole"))


def delete(path, others, chance):
    path.unlink()


def cut(path, others, chance):
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(len(data))])


def exchange(path, others, chance):
    other = chance.choice(others)
    mine, theirs = path.read_bytes(), other.read_bytes()
    path.write_bytes(theirs)
    other.write_bytes(mine)


def overwrite(path, others, chance):
    path.write_bytes(chance.choice(others).read_bytes())


def copy(path, others, chance):
    shutil.copy(path, path.with_name(f"copy of {path.name}"))


def zero(path, others, chance):
    """A block of zeros, as a crash of a file system leaves it."""
    data = bytearray(path.read_bytes())
    start = chance.randrange(len(data))
    data[start : start + 512] = bytes(len(data[start : start + 512]))
    path.write_bytes(data)


def flip(path, others, chance):
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


OPERATIONS = (delete, cut, exchange, overwrite, copy, zero, flip)


def damage(root, chance):
    """One operation on one file; what was done, "" where it changed nothing or is not promised."""
    pattern = chance.choice(FILES)
    files = sorted(root.glob(pattern))
    path = chance.choice(files)
    others = [other for other in files if other != path]
    operation = chance.choice(OPERATIONS)
    if not others and operation in (exchange, overwrite):
        return ""
    # A bit in a field that nothing is compared with (the host of a JSON) is no damage we promise.
    if operation is flip and not pattern.endswith(".jpg"):
        return ""
    if (operation is delete or operation is copy) and pattern == "t.parquet":
        return ""  # named by an error, or another table
    before = path.read_bytes()
    operation(path, others, chance)
    if operation not in (delete, copy) and path.read_bytes() == before:
        return ""
    return f"{operation.__name__} {path.relative_to(root)}"


def one(whole, place, seed):
    chance = random.Random(seed)
    root = shutil.copytree(whole, place / str(seed))
    done = damage(root, chance)
    if done:
        ended = verify(root)
        assert ended.status == 1 and kinds(ended), f"seed {seed}: {done}\n{ended.out}{ended.err}"
    shutil.rmtree(root)
    return bool(done)


def test_no_damage_passes(whole, tmp_path):
    assert sum(one(whole, tmp_path, seed) for seed in range(24)) > 12


@pytest.mark.soak
def test_no_damage_of_a_thousand_passes(whole, tmp_path):
    assert sum(one(whole, tmp_path, seed) for seed in range(1000)) > 500
