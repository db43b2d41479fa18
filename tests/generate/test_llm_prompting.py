"""The command lines of llm_prompting.py as real processes, the backends file, and real models."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from generate.llms import backends_file as llm_backends
from generate.llms.prompter import Prompter
from tests.fakes.fake_llm import FakeOllama, FakeOpenAI

pytestmark = pytest.mark.timeout(240)
ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "generate" / "llm_prompting.py"
KEY = "sk-verysecret0123456789"
CLEAN = {
    name: value
    for name, value in os.environ.items()
    if not name.endswith("_API_KEY") and not name.startswith("OLLAMA")
}
BACKEND = {"provider": "ollama", "model": "llama3.1", "hosts": "node1"}


def start(*args, **env):
    return subprocess.Popen(
        [sys.executable, SCRIPT, *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**CLEAN, **env},
    )


def call(*args, **env):
    process = start(*args, **env)
    out, err = process.communicate(timeout=200)
    assert "Traceback" not in err, err
    return process.returncode, out, err


def backends_file(folder, *tiers):
    path = folder / "backends.yaml"
    path.write_text(yaml.safe_dump({"tiers": [{"backends": list(tier)} for tier in tiers]}))
    return path


def test_whole_file_is_killed_and_goes_on_where_it_was(tmp_path):
    prompts, output = tmp_path / "p.json", tmp_path / "p.augmented.json"
    items = [{"prompt": f"a painting of bird number {k}", "source": ["birds"]} for k in range(40)]
    items[3]["variations"] = ["bird number 3 as a kite above the sea"]
    prompts.write_text(json.dumps(items))
    with FakeOllama(latency=0.2) as fake:
        args = (prompts, "--num_variations", 12, "--output", output, "--ollama_hosts", fake.url)
        part = tmp_path / "p.augmented.json.part"
        process = start(*args)
        while not part.exists() or part.read_text().count("\n") < 6:
            time.sleep(0.02)
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
        while len(fake.asked) < asked_before + 20:
            time.sleep(0.02)
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


def test_short_prompts_are_named_and_the_exit_status_says_so(tmp_path):
    prompts, output = tmp_path / "p.txt", tmp_path / "o.json"
    prompts.write_text("a red fox\na sealed word\n")
    with FakeOllama() as fake:
        fake.next_fault = lambda: "refusal" if "sealed" in fake.asked[-1][1] else None
        status, out, err = call(prompts, "--output", output, "--ollama_hosts", fake.url)
    assert (
        status == 3
        and "1 prompts got fewer than 9; the first is number 1" in out
        and "refusal" in out
    )
    assert [len(item["variations"]) for item in json.loads(output.read_text())] == [9, 0]


def test_the_cap_ends_a_call_that_nothing_else_can_serve_and_a_higher_one_goes_on(tmp_path):
    """Nobody can raise the cap of a process while it runs: it ends with one line, keeps what was paid for, and asks for nothing twice."""
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
        status, out, err = call(*args, "--llm_budget_usd", 0.15, A_KEY=KEY)
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
        status, out, err = call(*args, "--llm_budget_usd", 5, A_KEY=KEY)
        assert (
            status == 0 and len(fake.calls) == 12 and len(json.loads(output.read_text())) == 12
        ), err


def test_two_at_once_and_an_output_that_cannot_be(tmp_path):
    """A second process for the same output would pay for everything again; a folder is found before anything is asked."""
    prompts, output = tmp_path / "p.json", tmp_path / "o.json"
    prompts.write_text(json.dumps([f"bird number {k}" for k in range(8)]))
    with FakeOllama(latency=1, slots=1) as fake:
        args = (prompts, "--output", output, "--num_variations", 2, "--ollama_hosts", fake.url)
        first = start(*args)
        while not fake.calls:
            time.sleep(0.02)
        status, out, err = call(*args)
        assert status == 1 and "another process is writing" in err.strip().splitlines()[-1]
        first.communicate(timeout=60)
        assert first.returncode == 0 and len(fake.calls) == 8
        status, out, err = call(prompts, "--output", tmp_path, "--ollama_hosts", fake.url)
        assert status == 1 and "is a folder" in err and len(fake.calls) == 8


def test_one_prompt_by_hand_and_no_key_anywhere(tmp_path):
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
        status, out, err = call("--check", "--llm_backends", file, A_KEY=KEY)
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
        (["--prompt", "x", "-n", "0"], 2, "-n must be at least 1"),
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
        (["--prompt", "x", "--min_overlap", "50"], 2, "50 is not a number from 0 to 1"),
        (["--check", "--ollama_hosts", "node1:2-1"], 1, "'node1:2-1' is no Ollama host"),
    ],
)
def test_bad_command_lines(tmp_path, args, status, words):
    assert (
        (found := call(*args))[0] == status
        and words in found[2]
        and found[2].strip().count("\n") == 0
    ), found


@pytest.mark.parametrize(
    "text,words",
    [
        ("a: [", "is not YAML"),
        ("tiers: 3", "must hold `tiers:`"),
        ("- x", "must hold `tiers:`"),
        ("tiers: [{backends: [{provider: ollama}]}]", "`provider` and `model`"),
        (
            "tiers: [{backends: [{provider: o, model: m, modle: x}]}]",
            "tier 1, backend 1: unknown field 'modle'",
        ),
        (
            "tiers: [{backends: [{provider: o, model: m, timeout_s: -1}]}]",
            "timeout_s must be a number above 0",
        ),
        (
            "tiers: [{backends: [{provider: o, model: m, concurrency: many}]}]",
            "concurrency must be",
        ),
        ("tiers: [{paid: true, backends: [{provider: o, model: m}]}]", "needs usd_per_million"),
        (
            "tiers: [{backends: [{provider: o, model: m, usd_per_million: 3}]}]",
            "usd_per_million is",
        ),
        ("\xff", "is not"),
    ],
)
def test_bad_backends_files(tmp_path, text, words):
    path = tmp_path / "b.yaml"
    path.write_bytes(text.encode("latin-1") if text == "\xff" else text.encode())
    with pytest.raises(SystemExit, match=re.escape(words) if words != "is not" else "not UTF-8"):
        llm_backends.read(path, log=lambda line: None)


def test_hosts_ports_and_environment(tmp_path, monkeypatch):
    def hosts(entry_hosts=None, option=None):
        entry = {
            "provider": "ollama",
            "model": "m",
            **({"hosts": entry_hosts} if entry_hosts else {}),
        }
        return [
            b.details["base_url"]
            for b in llm_backends.read(
                backends_file(tmp_path, [entry]), option, log=lambda line: None
            )
        ]

    monkeypatch.delenv("OLLAMA_HOSTS", raising=False)
    monkeypatch.delenv("OLLAMA_HOST", raising=False)
    assert hosts() == ["http://localhost:11434"]
    assert hosts("node1:11434-11436,node2") == [
        "http://node1:11434",
        "http://node1:11435",
        "http://node1:11436",
        "http://node2:11434",
    ]
    assert hosts(["node1", "https://far.example:443/"]) == [
        "http://node1:11434",
        "https://far.example:443",
    ]
    monkeypatch.setenv("OLLAMA_HOST", "0.0.0.0:11500")
    assert hosts() == ["http://localhost:11500"]
    monkeypatch.setenv("OLLAMA_HOST", "http://0.0.0.0")
    assert hosts() == ["http://localhost:11434"]
    monkeypatch.setenv("OLLAMA_HOSTS", "a:1-2 b")
    assert hosts() == ["http://a:1", "http://a:2", "http://b:11434"]
    assert hosts("c", "d:7") == ["http://d:7"] and hosts("c") == ["http://c:11434"]


def test_a_missing_key_is_one_line_and_the_example_is_readable(monkeypatch):
    for name in list(os.environ):
        if name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    lines = []
    backends = llm_backends.read(ROOT / "generate" / "llm_backends.example.yaml", log=lines.append)
    assert len([line for line in lines if "GROQ_API_KEY is not set" in line]) == 2
    assert [b.off_kind for b in backends] == [None, "key", "key", "budget", "budget"] and [
        b.tier for b in backends
    ] == [0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    "prompt", ["a corgi", 'a "corgi" ' * 200, "\U0001f600\u3042" * 300, "{prompt}{n}\\\n\t" * 50]
)
@pytest.mark.parametrize("few_shot", [True, False])
def test_what_is_reserved_covers_every_byte_that_is_sent(tmp_path, prompt, few_shot):
    """A token is at least a byte, so the bytes bound the bill; the fake's body holds messages and schema."""
    with FakeOllama() as fake:
        prompter = Prompter(
            backends_file(tmp_path, [{**BACKEND, "hosts": [fake.host], "few_shot": few_shot}]),
            accounts=":memory:",
            log=print,
        )
        reserved = []
        prompter.start()
        take = prompter.router._take
        prompter.router._take = lambda backend, request: (
            reserved.append(request.prompt_bytes),
            take(backend, request),
        )
        prompter.submit(prompt, 40).result(60)
        prompter.close()
    sent = [
        sum(len(m["content"].encode()) for m in body["messages"]) + len(json.dumps(body["format"]))
        for body in fake.calls
    ]
    assert len(sent) >= 4 and all(
        bytes_sent <= bytes_reserved for bytes_sent, bytes_reserved in zip(sent, reserved)
    )


def test_keys_are_scrubbed():
    assert KEY not in llm_backends.scrub(f"Incorrect API key provided: {KEY}.\nBearer {KEY}", KEY)
    assert "abcdef" not in llm_backends.scrub(
        "Incorrect API key: sk-proj-abcdef123456 and gsk_abcdef123456, Bearer abcdef.123456"
    )


def test_help_imports_nothing_heavy():
    code = (
        "import sys, runpy; sys.argv = ['x', '--help']\ntry: runpy.run_path(%r, run_name='__main__')\nexcept SystemExit: pass\n"
        "print([m for m in sys.modules])" % str(SCRIPT)
    )
    out = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(SCRIPT.parent)!r}); {code}"],
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


@pytest.fixture(scope="module")
def embedded_packages():
    if not importlib.util.find_spec("xllamacpp"):
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(
            "xllamacpp is missing: pip install --no-deps -r requirements-demo.txt"
        )


def test_embedded_model_for_real(embedded_packages):
    prompter = Prompter("embedded", log=lambda line: None)
    result = prompter.submit("a red circle above a blue square", 3).result(200)
    use = prompter.use()["backends"]["embedded"]
    child = prompter.server.process
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


def test_embedded_model_dies_with_its_client(embedded_packages):
    code = "import time; from generate.llms.prompter import Prompter; p = Prompter('embedded', log=lambda l: None); p.start(); "
    code += "print(p.server.process.pid, flush=True); time.sleep(100)"
    client = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True
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


def test_real_model_over_ollamas_protocol(tmp_path, embedded_packages):
    server = subprocess.Popen(
        [sys.executable, ROOT / "tests" / "fakes" / "small_ollama.py"],
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
        prompter = Prompter(backends_file(tmp_path, [entry]), accounts=":memory:", log=print)
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
