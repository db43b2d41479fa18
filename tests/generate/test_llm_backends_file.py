"""The file of LLM backends: what may stand in it, hosts and ports, keys."""

import json
import os
import re

import pytest

from common.command_line import UserError
from common.files import CHECKOUT
from generate.llms import backends_file as backends_files
from generate.llms.backends_file import BackendsFile
from generate.llms.chat import scrub
from generate.llms.prompter import Prompter
from generate.protocol.fields import MOST_BACKENDS, Fields, llm
from generate.server.signed_calls import LARGEST_BODY
from tests.fakes.fake_llm import FakeOllama
from tests.fakes.prompters import backends_file, prompter_for

pytestmark = pytest.mark.timeout(120)
KEY = "sk-verysecret0123456789"


# values that are not of the type which their tag, or their look, promises
BAD_YAML = [
    'a: !!int ""',
    'a: !!bool "q"',
    'a: !!timestamp "99"',
    "? [1]\n: 2",
    'a: !!int "abc"',
    'a: !!float "x"',
    "a: 2026-99-99",
    f"a: {'9' * 5000}",
    "[" * 5000,
]


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
        (
            "tiers: [{backends: [{provider: o, model: m, pattern: '('}]}]",
            "pattern is no regular expression",
        ),
        (
            "tiers: [{backends: [{provider: o, model: m, options: [1]}]}]",
            "options must be fields and values",
        ),
        (
            "tiers: [{backends: [{provider: o, model: m, concurrency: .inf}]}]",
            "concurrency must be a number above 0",
        ),
        ("\xff", "is not"),
        *((text, "is not YAML") for text in BAD_YAML),
    ],
)
def test_bad_backends_files(tmp_path, text, words):
    path = tmp_path / "b.yaml"
    path.write_bytes(text.encode("latin-1") if text == "\xff" else text.encode())
    with pytest.raises(UserError, match=re.escape(words) if words != "is not" else "not UTF-8"):
        BackendsFile(path).configs()


def test_hosts_ports_and_environment(tmp_path, monkeypatch):
    def hosts(entry_hosts=None, option=None):
        entry = {
            "provider": "ollama",
            "model": "m",
            **({"hosts": entry_hosts} if entry_hosts else {}),
        }
        return [
            config.base_url
            for config in BackendsFile(backends_file(tmp_path, [entry]), option).configs()
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


def test_the_server_takes_the_totals_of_as_many_backends_as_a_file_may_have(tmp_path):
    """Beyond 52 the report was refused: nothing was counted, and no LLM seemed to be healthy."""

    def prompter(hosts):
        entry = {"provider": "ollama", "model": "m"}
        return Prompter(BackendsFile(backends_file(tmp_path, [entry]), hosts))

    hosts = f"node1:1-256,node2:1-{MOST_BACKENDS - 256}"
    many = prompter(hosts)
    said = {"use": many.use(), "limits": many.limits()}
    for name in said:
        assert len(llm(Fields(said), name)["backends"]) == MOST_BACKENDS
    for backend in many.backends:
        backend.disable("model", "沒有這個模型" * 50)
    assert len(json.dumps(many.use())) < LARGEST_BODY / 2, "each heartbeat was refused"
    assert all("沒有" in use["because"] for use in many.use()["backends"].values())
    many.replaced = prompter(hosts.replace("node", "earlier")).backends
    many.replaced[0].usage.calls = many.replaced[1].usage.calls = 2
    said = {"use": many.use()}  # the file was read again, and names others
    assert len(llm(Fields(said), "use")["backends"]) == MOST_BACKENDS + 1
    assert said["use"]["backends"]["earlier versions of the file"]["calls"] == 4
    with pytest.raises(UserError, match=f"{MOST_BACKENDS + 1} LLM backends .*name fewer hosts"):
        prompter(f"{hosts},node3")


def test_an_own_file_that_leads_nowhere_is_not_passed_over(tmp_path, monkeypatch):
    """The example's LLMs, some of them paid, are not what the user chose."""
    monkeypatch.setattr(backends_files, "CHECKOUT", tmp_path)
    (tmp_path / "generate").mkdir()
    assert BackendsFile().path.name == "llm_backends.example.yaml"
    (tmp_path / "generate" / "llm_backends.yaml").symlink_to(tmp_path / "moved.yaml")
    with pytest.raises(UserError, match=r"llm_backends\.yaml: it is a link to nowhere"):
        BackendsFile().configs()


def test_a_missing_key_is_one_line_and_the_example_is_readable(monkeypatch, caplog):
    for name in list(os.environ):
        if name.endswith("_API_KEY"):
            monkeypatch.delenv(name)
    example = CHECKOUT / "generate" / "llm_backends.example.yaml"
    backends = Prompter(BackendsFile(example)).backends
    assert len([line for line in caplog.messages if "GROQ_API_KEY is not set" in line]) == 2
    assert [b.disabled_kind for b in backends] == [None, "key", "key", "budget", "budget"] and [
        b.config.tier for b in backends
    ] == [0, 0, 0, 1, 1]


@pytest.mark.parametrize(
    "prompt", ["a corgi", 'a "corgi" ' * 200, "\U0001f600\u3042" * 300, "{prompt}{n}\\\n\t" * 50]
)
@pytest.mark.parametrize("few_shot", [True, False])
def test_what_is_reserved_covers_every_byte_that_is_sent(tmp_path, prompt, few_shot):
    """A token is at least a byte, so the bytes bound the bill.

    The fake's body holds messages and schema.
    """
    with FakeOllama() as fake:
        backend = {"provider": "ollama", "model": "llama3.1", "hosts": [fake.host]}
        prompter = prompter_for(tmp_path, [{**backend, "few_shot": few_shot}])
        reserved = []
        prompter.start()
        take = prompter.backends[0].take
        prompter.backends[0].take = lambda now, prompt_bytes: (
            reserved.append(prompt_bytes),
            take(now, prompt_bytes),
        )
        prompter.submit(prompt, 40).result(60)
        prompter.close()
    sent = [
        sum(len(m["content"].encode()) for m in body["messages"]) + len(json.dumps(body["format"]))
        for body in fake.calls
    ]
    assert len(sent) >= 4 and all(
        bytes_sent <= bytes_reserved
        for bytes_sent, bytes_reserved in zip(sent, reserved, strict=False)
    )


def test_keys_are_scrubbed():
    assert KEY not in scrub(f"Incorrect API key provided: {KEY}.\nBearer {KEY}", KEY)
    assert "abcdef" not in scrub(
        "Incorrect API key: sk-proj-abcdef123456 and gsk_abcdef123456, Bearer abcdef.123456"
    )
