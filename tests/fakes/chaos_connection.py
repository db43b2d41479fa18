"""The network and the LLM's log around a run in one process (chaos_run.py)."""

from concurrent.futures import Future
from typing import TYPE_CHECKING

from generate.llms.prompter import Variations
from generate.protocol.connection import ServerAway, read_server_json

if TYPE_CHECKING:
    from tests.fakes.chaos_run import ChaosRun


class Connection:
    """What a client has in place of a network: the server that lives, if server.json names it."""

    run: "ChaosRun"

    def __init__(self, output_root, epoch=0):
        record = read_server_json(output_root)
        server = self.run.server
        if server is None or record.url != server.url:
            raise ServerAway(f"nobody answers at {record.url}")
        if server.epoch < epoch:
            raise ServerAway("an older server")
        self.url, self.run_id, self.epoch = server.url, server.run_id, server.epoch

    def post(self, path, body):
        if self.run.server is None or self.run.server.epoch != self.epoch:
            raise ConnectionResetError("the server was killed")
        answer = self.run.app.test_client().post(path, json=body)
        return answer.status_code, answer.get_json()

    def close(self):
        pass


class FakeLLM:
    """Answers at once, with captions that nobody has had; asked: (data set id, index, how many)."""

    def __init__(self, run):
        self.run = run
        self.count = 0

    def limits(self):
        return None

    def submit(self, prompt, n, known):
        self.run.checker().check_question(prompt, n)
        texts = []
        for _ in range(n):
            self.count += 1
            text = f"{prompt}, seen from side {self.count}"
            texts.append({"text": text, "llm_model_name": "fake", "backend": "fake"})
        future = Future()
        future.set_result(Variations(texts, None))
        return future
