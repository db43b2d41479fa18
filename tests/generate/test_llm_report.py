"""Diversity and fidelity of variations: the figures, the table, the plot."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from common.files import CHECKOUT
from generate.llms.diversity import distinct_2, measure, nearest, vendi
from generate.llms.scatter import Dot, scatter
from postprocess_dataset.packing.pack_folder import Packing
from tests.fakes.fake_llm import FakeOllama

pytestmark = pytest.mark.timeout(120)


def call(*args):
    """(status, standard output, standard error) of llm_prompting.py."""
    command = [sys.executable, CHECKOUT / "generate" / "llm_prompting.py", *map(str, args)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout, done.stderr


def test_figures_of_what_is_known():
    same = np.tile(np.eye(1, 8, dtype=np.float32), (5, 1))
    assert vendi(same) == pytest.approx(1) and nearest(same) == pytest.approx(1)
    assert vendi(np.eye(6, 8)) == pytest.approx(6) and nearest(np.eye(6, 8)) == pytest.approx(0)
    twice = np.repeat(np.eye(3, 8), 2, axis=0)
    assert vendi(twice) == pytest.approx(3)
    many = np.repeat(np.eye(3), 500, axis=0)  # more rows than columns: the smaller matrix
    assert vendi(many) == pytest.approx(3)
    assert distinct_2(["a red fox", "a red owl"]) == pytest.approx(3 / 4)
    assert vendi(np.zeros((0, 8))) == nearest(np.zeros((0, 8))) == distinct_2([]) == 0


def test_varied_and_faithful_texts_have_the_higher_figures():
    plain = measure(
        "a red fox", [f"a red fox in the snow, {k}" for k in ("photo", "image", "shot")]
    )
    varied = measure("a red fox", ["a red fox at sea", "an ink fox on Mars", "a fox wedding, 1890"])
    far = measure("a red fox", ["tax forms", "a concrete bridge", "circuit board"])
    assert plain.vendi < varied.vendi and plain.nearest > varied.nearest
    assert far.fidelity < varied.fidelity


def test_a_plot_takes_any_names():
    svg = scatter([Dot(0.0, 0.0, "<m>", "a & b"), Dot(-0.2, 3.0, "n", "c")], ("x", "y"))
    assert "&lt;m&gt;" in svg and "a &amp; b" in svg and "nan" not in svg
    assert scatter([], ("x", "y")).endswith("</svg>\n")


def test_the_report_is_a_table_and_a_plot(tmp_path):
    """Of a file as it was written, with who wrote each text; and of a data set's folder."""
    prompts, output = tmp_path / "p.json", tmp_path / "o.json"
    prompts.write_text(json.dumps(["a red fox", {"prompt": "an owl", "variations": ["an owl"]}]))
    with FakeOllama() as fake:
        call(prompts, "--num_variations", 6, "--output", output, "--ollama_hosts", fake.url)
    items = json.loads(output.read_text())
    details = items[1]["variation_details"]
    assert details[0] is None and details[1]["llm_model_name"] == "llama3.1"
    assert set(details[1]) == {"llm_model_name", "backend", "attributes"}
    status, out, err = call(output, "--report")
    assert status == 0, err
    rows = {line[:47].strip(): line.split()[-5:] for line in out.splitlines() if line.strip()}
    assert rows["all 2 prompts"][0] == "12" and rows["llama3.1"][0] == "11"
    assert 1 < float(rows["a red fox"][1]) <= 6
    assert (tmp_path / "o.json.variations.svg").read_text().count("<title>") == 2

    lines = tmp_path / "o.jsonl"
    lines.write_text("\n".join(json.dumps(item) for item in items))
    status, out, err = call(lines, "--report")
    assert status == 0 and "all 2 prompts" in out, err

    record = {"prompt_index": 0, "original_prompt": "a red fox", "source": [], "short": None}
    record["texts"] = [{"text": "a red fox"}]
    record["texts"] += [{"text": f"a {k} fox", "llm_model_name": "m"} for k in ("blue", "sad")]
    block = tmp_path / "set" / "000000"
    block.mkdir(parents=True)
    (block / "0.prompts").write_text(json.dumps(record))
    os.mkfifo(block / "6.prompts")
    status, out, err = call(tmp_path / "set", "--report")
    assert status == 0 and "all 1 prompts" in out
    assert "the .prompts of prompt 6 is torn" in err
    (block / "6.prompts").unlink()
    (block / "COMPLETE").write_text("{}")
    assert Packing(block).run().prompts == 1
    status, out, err = call(tmp_path / "set", "--report")
    assert status == 0 and "all 1 prompts" in out, err
    assert (tmp_path / "set.variations.svg").exists()
    status, _, err = call(prompts, "--report", "--prompt", "x")
    assert status == 2
