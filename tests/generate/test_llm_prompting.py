"""The command lines of llm_prompting.py as real processes."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.fake_llm import FakeOllama, FakeOpenAI
from tests.fakes.forked_script import forked
from tests.fakes.prompters import backends_file
from tests.fakes.running_server import until

pytestmark = pytest.mark.timeout(240)
ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "generate" / "llm_prompting.py"
KEY = "sk-verysecret0123456789"
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.endswith("_API_KEY") and not name.startswith("OLLAMA")
}


def start(*args, **env):
    return subprocess.Popen(
        [sys.executable, SCRIPT, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**CLEAN, **env},
    )


def call(*args, **env):
    ended = forked("generate/llm_prompting.py", *args, environment=CLEAN | env)
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended.returncode, ended.stdout, ended.stderr


def test_whole_file_is_killed_and_goes_on_where_it_was(tmp_path):
    prompts, output = tmp_path / "p.json", tmp_path / "p.augmented.json"
    items = [{"prompt": f"a painting of bird number {k}", "source": ["birds"]} for k in range(40)]
    items[3]["variations"] = ["bird number 3 as a kite above the sea"]
    prompts.write_text(json.dumps(items))
    with FakeOllama(latency=0.2) as fake:
        args = (prompts, "--num_variations", 12, "--output", output, "--ollama_hosts", fake.url)
        part = tmp_path / "p.augmented.json.part"
        process = start(*args)
        until(
            lambda: part.exists() and part.read_text().count("\n") >= 6,
            "six lines",
            process=process,
        )
        process.kill()
        process.communicate()
        assert not output.exists()
        finished = [
            json.loads(line)["index"]
            for line in part.read_bytes().rsplit(b"\n", 1)[0].splitlines()[1:]
        ]
        with open(part, "ab") as file:
            file.write(b'{"index": 39, "te')  # a line half-written when the power went
        asked_before = len(fake.asked)

        status, out, err = call(
            prompts, "--num_variations", 11, "--output", output, "--ollama_hosts", fake.url
        )
        assert (
            status == 1
            and "is of another prompts file or --num_variations" in err
            and not output.exists()
        )

        process = start(*args)
        until(lambda: len(fake.asked) >= asked_before + 20, "20 questions", process=process)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=60)
        assert (
            process.returncode == 143
            and "the same command goes on from here" in err
            and not output.exists()
        )

        status, out, err = call(*args)
        assert status == 0, err
    written = json.loads(output.read_text())
    assert [item["prompt"] for item in written] == [item["prompt"] for item in items] and written[
        0
    ]["source"] == ["birds"]
    assert (
        all(len(set(item["variations"])) == 12 for item in written)
        and written[3]["variations"][0] == items[3]["variations"][0]
    )
    again = [re.search(r"number (\d+)\"", text)[1] for _, text in fake.asked[asked_before:]]
    assert not {int(number) for number in again} & set(finished), (
        "what was finished is not asked for again"
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.augmented.json", "p.json"]
    assert "40 prompts, 479 new variations" in out


def test_incomplete_prompts_are_named_and_the_exit_status_says_so(tmp_path):
    prompts, output = tmp_path / "p.txt", tmp_path / "o.json"
    prompts.write_text("a red fox\na sealed word\n")
    with FakeOllama() as fake:
        fake.next_fault = lambda: "refusal" if "sealed" in fake.asked[-1][1] else None
        status, out, _ = call(prompts, "--output", output, "--ollama_hosts", fake.url)
    assert (
        status == 3
        and "1 prompts got fewer than 9; the first is number 1" in out
        and "refusal" in out
    )
    assert [len(item["variations"]) for item in json.loads(output.read_text())] == [9, 0]


def test_the_cap_ends_a_call_that_nothing_else_can_serve_and_a_higher_one_goes_on(tmp_path):
    """Nobody can raise the cap of a process while it runs.

    It ends with one line, keeps what was paid for, and asks for nothing twice.
    """
    prompts, output = tmp_path / "p.json", tmp_path / "o.json"
    prompts.write_text(json.dumps([f"bird number {k}" for k in range(12)]))
    with FakeOpenAI(usd_per_million=(15, 60)) as fake:
        price = {
            "usd_per_million": [15, 60],
            "max_tokens": 400,
            "key_env": "A_KEY",
            "concurrency": 1,
        }
        file = backends_file(
            tmp_path,
            [{"provider": "openai", "model": "gpt-4o-mini", "base_url": f"{fake.url}/v1", **price}],
        )
        args = (prompts, "--output", output, "--num_variations", 3, "--llm_backends", file)
        status, _, err = call(*args, "--llm_budget_usd", 0.15, A_KEY=KEY)
        last, paid_for = err.strip().splitlines()[-1], len(fake.calls)
        assert (
            status == 1
            and "the cap of 0.15 USD is reached" in last
            and "raise it with --llm_budget_usd" in last
        ), err
        assert (
            f"{paid_for} of 12 prompts are kept" in last
            and 0 < paid_for < 12
            and fake.billed["usd"] <= 0.15
            and not output.exists()
        )
        status, _, err = call(*args, "--llm_budget_usd", 5, A_KEY=KEY)
        assert (
            status == 0 and len(fake.calls) == 12 and len(json.loads(output.read_text())) == 12
        ), err


def test_two_at_once_and_an_output_that_cannot_be(tmp_path):
    """A second process for the same output would pay for everything again.

    A folder is found before anything is asked.
    """
    prompts, output = tmp_path / "p.json", tmp_path / "o.json"
    prompts.write_text(json.dumps([f"bird number {k}" for k in range(8)]))
    with FakeOllama(latency=1, slots=1) as fake:
        args = (prompts, "--output", output, "--num_variations", 2, "--ollama_hosts", fake.url)
        first = start(*args)
        until(lambda: fake.calls, "a call", process=first)
        status, _, err = call(*args)
        assert status == 1 and "another process is writing" in err.strip().splitlines()[-1]
        first.communicate(timeout=60)
        assert first.returncode == 0 and len(fake.calls) == 8
        status, _, err = call(prompts, "--output", tmp_path, "--ollama_hosts", fake.url)
        assert status == 1 and "is a folder" in err and len(fake.calls) == 8


def test_one_prompt_interactively_and_no_key_anywhere(tmp_path):
    with FakeOllama() as good, FakeOpenAI(key="another") as refuses:
        file = backends_file(
            tmp_path,
            [
                {"provider": "ollama", "model": "llama3.1", "hosts": [good.url], "name": "mine"},
                {
                    "provider": "openai",
                    "model": "m",
                    "base_url": f"{refuses.url}/v1",
                    "key_env": "SECRET_KEY",
                    "concurrency": 1,
                },
            ],
        )
        status, out, err = call(
            "--prompt", "a corgi in a top hat", "-n", 25, "--llm_backends", file, SECRET_KEY=KEY
        )
        assert (
            status == 0
            and len(re.findall(r"^ *\d+\. .*\[mine@127", out, re.M)) == 25
            and re.search(r"\d+ calls, [\d.]+ s, [\d,]+ \+ [\d,]+ tokens .*0\.0000 USD", out)
        )
        good.stop()
        check_status, table, check_err = call("--check", "--llm_backends", file, SECRET_KEY=KEY)
        good.start()
        assert refuses.calls, "the key was sent to its own provider"
    assert (
        KEY not in out + err + table + check_err
        and "set SECRET_KEY to a valid key" in table
        and check_status == 1
    )


def test_check_says_what_to_do_about_each(tmp_path):
    with (
        FakeOllama(models=["llama3.1"]) as good,
        FakeOllama(faults=["429"]) as busy,
        FakeOpenAI(faults=["402"]) as poor,
        FakeOllama() as gone,
    ):
        gone.stop()
        openai = {"provider": "openai", "model": "gpt-4o-mini", "base_url": f"{poor.url}/v1"}
        file = backends_file(
            tmp_path,
            [
                {
                    "provider": "ollama",
                    "model": "llama3.1",
                    "hosts": [good.host, busy.host, gone.host],
                },
                {"provider": "ollama", "model": "qwen", "hosts": [good.host]},
            ],
            [
                {**openai, "name": "paid", "usd_per_million": [1, 1], "key_env": "A_KEY"},
                {**openai, "name": "poor", "key_env": "A_KEY"},
                {**openai, "name": "keyless", "key_env": "NO_KEY"},
                {"provider": "perplexity", "model": "x", "key_env": "A_KEY"},
            ],
        )
        status, out, _ = call("--check", "--llm_backends", file, A_KEY=KEY)
        gone.start()
    rows = {line.split()[0]: line for line in out.splitlines()}
    assert status == 0 and "1 of 8 backends can be used" in out
    assert re.search(r"not needed +yes +yes +\d+\.\d\d s$", rows[f"ollama/llama3.1@{good.host}"])
    for name, words in {
        f"ollama/llama3.1@{busy.host}": "wait, or lower requests_per_minute",
        f"ollama/llama3.1@{gone.host}": "start it (ollama serve)",
        f"ollama/qwen@{good.host}": "run `ollama pull qwen` on 127.0.0.1",
        "paid": "name --llm_budget_usd",
        "poor": "top up the account",
        "keyless": "set NO_KEY",
        "perplexity/x": "pip install langchain-perplexity",
    }.items():
        assert words in rows[name], rows[name]
    assert len(poor.calls) == 1, "a paid backend is not asked without a budget"


@pytest.mark.parametrize(
    "args,status,words",
    [
        ([], 2, "name a prompts file, or --prompt TEXT, or --check"),
        (["--prompt", "x", "--check"], 2, "name a prompts file"),
        (["p.json"], 2, "--output FILE is needed"),
        (["--prompt", "x", "-n", "0"], 2, "0 is not a whole number from 1 to 100,000"),
        (["--promt", "x"], 2, "did you mean --prompt?"),
        (["nowhere.json", "--output", "o.json"], 1, "nowhere.json"),
        (
            ["--check", "--llm_backends", "nowhere.yaml"],
            1,
            "cannot read the backends file nowhere.yaml",
        ),
        (
            [
                "--prompt",
                "x",
                "--llm_instruction",
                __file__.replace("test_llm_prompting.py", "test_llm_router.py"),
            ],
            1,
            "must hold {n}",
        ),
        (["--prompt", " "], 2, "--prompt is blank"),
        (
            ["--prompt", "x", "--llm_budget_usd", "nan"],
            2,
            "nan is not a number from 0 to 1,000,000,000",
        ),
        (["--prompt", "x", "--llm_budget_usd=-3"], 2, "-3 is not a number from 0"),
        (["--prompt", "x", "--min_overlap", "0.5"], 2, "unknown argument '--min_overlap'"),
        (["--check", "--ollama_hosts", "node1:2-1"], 1, "'node1:2-1' is no Ollama host"),
    ],
)
def test_bad_command_lines(tmp_path, args, status, words):
    assert (
        (found := call(*args))[0] == status
        and words in found[2]
        and found[2].strip().count("\n") == 0
    ), found


def test_help_imports_nothing_heavy():
    code = (
        "import sys, runpy\n"
        "sys.argv = ['x', '--help']\n"
        f"try: runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "except SystemExit: pass\n"
        "print([m for m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
    ).stdout
    loaded = set(re.findall(r"'([\w]+)'", out.splitlines()[-1]))
    assert "argparse" in loaded and not loaded & {
        "langchain",
        "langchain_core",
        "openai",
        "ollama",
        "groq",
        "torch",
        "pandas",
        "httpx",
        "yaml",
        "rapidfuzz",
    }
