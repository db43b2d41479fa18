"""What scan_folder() says of a sub-folder is what its names say, one by one."""

import json
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from generate.dataset.scan import IndexFiles, scan_folder

INDICES = (3, 12, 123)
NAMES = st.sampled_from(
    [
        f"{index}{rest}"
        for index in INDICES
        for rest in ("_0.jpg", "_1.jpg", "_2.jpg", "_0.json", "_1.json", "_2.json", "_1.failed")
    ]
    + [
        "3.samples",
        "COMPLETE",
        "3_0.png",
        "03_0.jpg",
        "\u0663_0.jpg",
        "3_01.json",
        ".12_1.jpg.2-7.tmp",
        "x3_0.jpg",
    ]
)
CAPTIONS = st.dictionaries(
    st.sampled_from([f"{index}.prompts{n}" for index in INDICES for n in ("", "2")]),
    st.sampled_from([0, 1, 2, 3, None]),  # None: torn
    max_size=4,
)


def record(index, count):
    if count is None:
        return '{"prompt_index": 3, "texts": ['
    texts = [{"text": f"text {n}", "llm_model_name": None, "backend": None} for n in range(count)]
    short = None if count else {"missing": 2, "reason": "refused"}
    whole = {"prompt_index": index, "original_prompt": "a", "source": [], "texts": texts}
    return json.dumps(whole | {"short": short})


def by_names(names, captions):
    """{index: IndexFiles}, each name looked at by itself."""
    found = {}
    for name in names:
        if sample := re.fullmatch(r"([1-9][0-9]*)_([0-2])\.(jpg|json|failed)", name):
            files = found.setdefault(int(sample[1]), IndexFiles())
            kinds = {"jpg": files.images, "json": files.jsons, "failed": files.failed}
            kinds[sample[3]].add(int(sample[2]))
        elif name.endswith(".samples"):
            found.setdefault(int(name.split(".")[0]), IndexFiles()).collected = True
        elif name.endswith(".tmp"):
            found.setdefault(12, IndexFiles()).temporary.append(name)
    for name, count in captions.items():
        index, generation = name.split(".prompts")
        files = found.setdefault(int(index), IndexFiles())
        newer = int(generation or 1) > files.generation
        files.generation = max(files.generation, int(generation or 1))
        if count is not None and (newer or files.captions is None):
            files.captions = count
            files.short = {"missing": 2, "reason": "refused"} if count == 0 else None
    return found


@given(names=st.sets(NAMES, max_size=18), captions=CAPTIONS)
@settings(max_examples=100, deadline=None)
def test_a_folder_is_what_its_names_say(tmp_path_factory, names, captions):
    dataset = tmp_path_factory.mktemp("dataset")
    folder = dataset / "000000"
    folder.mkdir()
    for name in names:
        (folder / name).touch()
        if match := re.fullmatch(r"(\d+)_(\d+)\.failed", name):
            mark = {"prompt_index": int(match[1]), "augmentation_idx": int(match[2])}
            (folder / name).write_text(json.dumps(mark | {"reason": "image"}))
    for name, count in captions.items():
        (folder / name).write_text(record(int(name.split(".")[0]), count))
    assert scan_folder(dataset, 0) == by_names(names, captions)
    assert scan_folder(dataset, 0, only={12}) == {
        index: files for index, files in by_names(names, captions).items() if index == 12
    }


def test_captions_with_half_a_character_count(tmp_path):
    """An LLM may give a lone surrogate, which the faster JSON parser refuses."""
    text = {"text": "half a smile \ud83d", "llm_model_name": None, "backend": None}
    whole = {"prompt_index": 3, "original_prompt": "a", "source": [], "texts": [text]}
    (tmp_path / "000000").mkdir()
    (tmp_path / "000000" / "3.prompts").write_text(json.dumps(whole | {"short": None}))
    assert scan_folder(tmp_path, 0)[3].captions == 1
