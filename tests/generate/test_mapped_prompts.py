"""A large prompts file in a run: a map made once, of which a client reads what it needs."""

import errno
import fcntl
import json
import multiprocessing
import os
import resource

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from common.command_line import UserError
from generate.dataset import mapped_prompts
from generate.dataset.mapped_prompts import (
    MappedPrompts,
    items_to_check,
    open_prompts,
    prompts_sha256,
    without_variations,
)
from generate.dataset.prompts_file import list_sha256, read_prompts

ITEMS = [
    {"prompt": f"a bird, no. {n}, café “{n}”", "source": ["a", "b"][: n % 3]}
    | ({"variations": [f"bird {n}", f"fowl {n}"]} if n % 4 == 0 else {})
    | ({"size": "768x1344", "seed": n} if n % 1000 == 7 else {})
    for n in range(20_000)
]


def write(path, items):
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(items, SCHEMA), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(item) + "\n" for item in items))
    else:
        path.write_text(json.dumps(items))
    return path


SCHEMA = pa.schema(
    [
        ("prompt", pa.string()),
        ("source", pa.list_(pa.string())),
        ("variations", pa.list_(pa.string())),
        ("size", pa.string()),
        ("seed", pa.int64()),
        ("note", pa.string()),
    ]
)


@pytest.fixture
def mapped(tmp_path, monkeypatch):
    """mapped(name, items): its map, however small it is."""
    monkeypatch.setattr(mapped_prompts, "SMALL", 0)
    return lambda name="p.jsonl", items=ITEMS: open_prompts(
        write(tmp_path / name, items), tmp_path / "out/prompts"
    )


@pytest.mark.parametrize("name", ["p.json", "p.jsonl", "p.parquet"])
def test_a_map_is_the_list(mapped, tmp_path, name):
    items = mapped(name)
    plain = read_prompts(tmp_path / name)
    assert isinstance(items, MappedPrompts) and len(items) == len(plain) == 20_000
    assert list(items) == plain
    assert [items[n] for n in (0, 8191, 8192, 19_999, -1)] == [
        plain[n] for n in (0, 8191, 8192, 19_999, -1)
    ]
    assert items[8190:8195] == plain[8190:8195]
    for n in (20_000, -20_001):
        with pytest.raises(IndexError):
            items[n]
    assert prompts_sha256(items) == prompts_sha256(plain) == list_sha256(plain)
    for n in (1, 8192, 8193, 19_999):
        assert prompts_sha256(items, n) == prompts_sha256(plain, n)
    assert without_variations(items) == without_variations(plain) == 15_000
    assert list(items_to_check(items)) == [(7, plain[7])]


def test_a_small_file_of_many_prompts_is_mapped(tmp_path, monkeypatch):
    """8 kB of parquet were two million times the same prompt, and 750 MB in memory."""
    folder = tmp_path / "out/prompts"
    few = write(tmp_path / "few.parquet", ITEMS[:1000])
    same = pa.DictionaryArray.from_arrays(pa.array([0] * 20_000, pa.int32()), ["a red circle"])
    pq.write_table(pa.table({"prompt": same}), tmp_path / "many.parquet")
    monkeypatch.setattr(mapped_prompts, "MOST_HELD", 2 << 20)
    assert open_prompts(few, folder) == read_prompts(few)
    many = open_prompts(tmp_path / "many.parquet", folder)
    assert isinstance(many, MappedPrompts) and len(many) == 20_000


@pytest.mark.parametrize(
    "more",
    [
        {"negative_prompt": "n" * 4000},
        {"source": [f"s{n}" for n in range(80)]},
        {"variations": ["a"] * 80},
    ],
)
def test_whatever_a_prompt_carries_counts(tmp_path, monkeypatch, more):
    """75 kB of parquet, the same negative prompt 150,000 times, took 600 MB."""
    folder = tmp_path / "out/prompts"
    items = [{"prompt": f"a red circle {n}", "source": ["s"]} | more for n in range(1000)]
    plain = [{"prompt": item["prompt"], "source": ["s"]} for item in items]
    monkeypatch.setattr(mapped_prompts, "MOST_HELD", 2 << 20)
    assert isinstance(open_prompts(write(tmp_path / "p.jsonl", items), folder), MappedPrompts)
    assert isinstance(open_prompts(write(tmp_path / "q.jsonl", plain), folder), list)


def test_it_is_made_once_and_anew_for_another_file(mapped, tmp_path, monkeypatch):
    made = []
    real = mapped_prompts.stream_prompts

    def stream(path):
        made.append(path)
        return real(path)

    monkeypatch.setattr(mapped_prompts, "stream_prompts", stream)
    first = mapped()
    path = tmp_path / "p.jsonl"
    assert prompts_sha256(open_prompts(path, tmp_path / "out/prompts")) == prompts_sha256(first)
    assert len(made) == 1
    (tmp_path / "cut").write_bytes(first.path.read_bytes()[:1000])
    os.replace(tmp_path / "cut", first.path)
    assert list(open_prompts(path, tmp_path / "out/prompts")) == ITEMS and len(made) == 2
    first.path.with_suffix(".json").write_text("{")
    assert len(open_prompts(path, tmp_path / "out/prompts")) == 20_000 and len(made) == 3
    more = mapped(items=[*ITEMS, {"prompt": "one more", "source": []}])
    assert len(more) == 20_001 and len(made) == 4 and more.path != first.path
    assert len(first) == 20_000 and first[5] == ITEMS[5], "who reads the older one goes on"
    assert not list(first.path.parent.glob(".*"))


def test_those_of_earlier_states_of_the_file_go(mapped, tmp_path):
    """Unless a process has them open, on whatever they were made from; others' stay."""
    folder = tmp_path / "out/prompts"
    other = mapped("other.jsonl").path
    kept = mapped(items=ITEMS[:300])
    dropped = mapped(items=ITEMS[:200]).path
    assert kept.path.exists(), "this process has it open"
    newest = mapped(items=ITEMS[:100])
    assert not dropped.exists() and not list(folder.glob(f"{dropped.stem}*"))
    assert kept[299] == ITEMS[299] and kept.path.exists() and other.exists()
    assert list(newest) == ITEMS[:100]


def test_without_locks_nothing_is_removed(mapped, monkeypatch):
    def none(*args):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", none)
    first = mapped(items=ITEMS[:200]).path
    assert list(mapped(items=ITEMS[:100])) == ITEMS[:100] and first.exists()


def opened(path, root, queue):
    queue.put(open_prompts(path, root).path)


def test_clients_that_start_together_make_one(mapped, tmp_path):
    path = write(tmp_path / "p.jsonl", ITEMS)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    clients = [
        context.Process(target=opened, args=(path, tmp_path / "out/prompts", queue))
        for _ in range(4)
    ]
    for client in clients:
        client.start()
    assert len({queue.get(timeout=120) for _ in clients}) == 1
    for client in clients:
        client.join(60)
    assert len(list((tmp_path / "out/prompts").iterdir())) == 3  # map, facts, lock


def test_a_killed_maker_leaves_no_map(mapped, tmp_path, monkeypatch):
    """Whatever call it dies at: what is there is whole, or made anew."""
    path = write(tmp_path / "p.jsonl", ITEMS[:50])
    for n in range(1, 60):
        root = tmp_path / f"out{n}"
        child = os.fork()
        if not child:
            left = [n]
            for name in ("open", "replace", "fsync", "mkdir", "stat"):
                monkeypatch.setattr(os, name, dies(getattr(os, name), left))
            open_prompts(path, root)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert list(open_prompts(path, root)) == ITEMS[:50], n
        if status == 0:
            assert n > 5
            return
        assert status == 9
    raise AssertionError("it never lived")


def dies(real, left):
    def call(*args, **kwargs):
        left[0] -= 1
        if not left[0]:
            os._exit(9)
        return real(*args, **kwargs)

    return call


def test_memory_does_not_grow_with_the_prompts(mapped, tmp_path):
    """What a process holds after it has opened 10,000 and 100,000 prompts and read some."""

    def held(items):
        child = os.fork()
        if not child:
            before = memory()
            found = open_prompts(tmp_path / "p.jsonl", tmp_path / "out/prompts")
            assert found[len(found) - 1]["prompt"] and found[0]["prompt"]
            os._exit(min(255, (memory() - before) >> 18))  # quarters of MB
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    def memory():
        with open("/proc/self/statm") as file:
            pages = [int(word) for word in file.read().split()]
        return (pages[1] - pages[2]) * resource.getpagesize()  # its own, not the shared map

    long = [{"prompt": f"{n} " + "word " * 60, "source": []} for n in range(100_000)]
    mapped(items=long[:10_000])
    few = held(10_000)
    mapped(items=long)
    assert held(100_000) <= few + 12, "3 MB; the prompts take 31"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("p.jsonl", b'{"prompt": "a"}\n{"prompt": \n', "item 1 is not JSON"),
        ("p.jsonl", b'"a"\n[1]\n', "item 1 is [1]"),
        ("p.jsonl", b"\n \n", "holds no prompt"),
        ("p.jsonl", b'"a"\n"\xff"\n', "not UTF-8 (byte 5)"),
        ("p.parquet", b"PAR1 none", "not a parquet file"),
        ("p.json", b'["a", 3]', "item 1 is 3"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, monkeypatch, name, content, says):
    (tmp_path / name).write_bytes(content)
    for small in (0, 1 << 20):
        monkeypatch.setattr(mapped_prompts, "SMALL", small)
        with pytest.raises(UserError) as error:
            open_prompts(tmp_path / name, tmp_path / "out/prompts")
        assert says in str(error.value) and "\n" not in str(error.value)
    assert not list((tmp_path / "out/prompts").glob("*.json"))


def test_a_parquet_file_without_prompts_and_a_map_that_is_torn(mapped, tmp_path):
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "q.parquet")
    with pytest.raises(UserError, match='no column "prompt"'):
        read_prompts(tmp_path / "q.parquet")
    items = mapped()
    size = items.path.stat().st_size
    items.path.write_bytes(bytes(size))
    with pytest.raises(UserError, match="is damaged"):
        open_prompts(tmp_path / "p.jsonl", tmp_path / "out/prompts")
