"""Real models: the embedded one, and the same behind Ollama's protocol."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from common.files import CHECKOUT
from generate.llms.embedded import EmbeddedLLM
from generate.llms.prompter import Prompter
from tests.fakes.prompters import prompter_for

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def embedded_packages():
    if not importlib.util.find_spec("xllamacpp"):
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            "xllamacpp is missing: pip install --no-deps -r requirements-demo.txt"
        )


def test_embedded_model_for_real(embedded_packages):
    prompter = Prompter(EmbeddedLLM())
    result = prompter.submit("a red circle above a blue square", 3).result(200)
    use = prompter.use()["backends"]["embedded"]
    child = prompter.source.process
    prompter.close()
    texts = [item["text"] for item in result.texts]
    assert (
        result.short is None
        and len(set(texts)) == 3
        and all(text.startswith("a red circle above a blue square") for text in texts)
    )
    assert (
        result.texts[0]["llm_model_name"] == "SmolLM2-135M-Instruct"
        and use["completion_tokens"] > 20
    )
    assert child.returncode == 0, "close() ends the child"


def test_nobody_else_on_the_node_can_use_the_embedded_model(embedded_packages):
    llm = EmbeddedLLM()
    llm.configs()
    question = json.dumps({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1})
    for key, status in ((None, 401), ("wrong", 401), (llm.key, 200)):
        request = urllib.request.Request(f"{llm.url}/v1/chat/completions", question.encode())
        request.add_header("Content-Type", "application/json")
        if key:
            request.add_header("Authorization", f"Bearer {key}")
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                found = answer.status
        except urllib.error.HTTPError as error:
            found = error.code
        assert found == status
    llm.close()


def test_embedded_model_dies_with_its_client(embedded_packages):
    code = (
        "import time; from generate.llms.embedded import EmbeddedLLM; llm = EmbeddedLLM(); "
        "llm.configs(); print(llm.process.pid, flush=True); time.sleep(100)"
    )
    client = subprocess.Popen(
        [sys.executable, "-c", code], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True
    )
    child = int(client.stdout.readline())
    assert Path(f"/proc/{child}").exists()
    client.kill()
    client.wait()
    while (
        Path(f"/proc/{child}").exists()
        and "Z" not in Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1][:3]
    ):
        time.sleep(0.05)


def test_a_pattern_of_a_backends_file_holds_the_embedded_model_to_a_grammar(
    tmp_path, embedded_packages
):
    pattern = "a (big|small) (red|blue|green) (circle|square) on a (white|black) ground"
    entry = {"provider": "embedded", "name": "tiny", "pattern": pattern, "batch": 5}
    entry["options"] = {"extra_body": {"top_k": 0}}
    prompter = prompter_for(tmp_path, [entry])
    sent = prompter.source.configs()[0].options["extra_body"]
    assert sent == {"top_k": 0, "dry_multiplier": 0.8}, "the entry's beside what is needed anyway"
    result = prompter.submit("a red circle above a blue square", 5).result(200)
    prompter.close()
    texts = [item["text"] for item in result.texts]
    assert len(set(texts)) == 5 and all(re.fullmatch(pattern, text) for text in texts), texts


def test_real_model_over_ollamas_protocol(tmp_path, embedded_packages):
    server = subprocess.Popen(
        [sys.executable, CHECKOUT / "tests" / "fakes" / "small_ollama.py"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        url = server.stdout.readline().strip()
        entry = {
            "provider": "ollama",
            "model": "smollm2",
            "hosts": [url],
            "batch": 2,
            "few_shot": True,
            "max_tokens": 300,
        }
        prompter = prompter_for(tmp_path, [entry])
        result = prompter.submit("a corgi in a top hat", 3).result(200)
        use = next(iter(prompter.use()["backends"].values()))
        prompter.close()
    finally:
        server.kill()
        server.wait()
    texts = [item["text"] for item in result.texts]
    assert (
        len(texts) == len(set(texts)) == 3 - (result.short or {"missing": 0})["missing"]
        and len(texts) >= 2
    )
    assert use["successes"] >= 2 and use["completion_tokens"] > 20, (
        "asked in batches of 2, each with its own seed"
    )
