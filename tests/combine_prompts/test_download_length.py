"""A mirror that does not say how long a file is neither fills the disk nor leaves half of it."""

import contextlib
import sys

import pytest

from tests.combine_prompts import test_download
from tests.combine_prompts.test_download import EXAMPLES, FakeHub, local, run

hub = test_download.hub  # the fixture


@pytest.mark.parametrize("kind", ["endless", "without a length"])
def test_a_file_of_unknown_length_fills_no_disk_and_is_not_kept(tmp_path, hub, monkeypatch, kind):
    data = (EXAMPLES / "gecko/prompts.csv").read_bytes()
    words = ("process_gecko", "--url", f"{hub}/raw/x/prompts.csv")
    hook = f"import sys\nsys.path[:0] = {sys.path!r}\nimport combine_prompts.download as d\n"
    (tmp_path / "sitecustomize.py").write_text(f"{hook}d.MOST_BYTES = 10**6")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))

    def answer(self):
        self.send_response(200)
        if kind == "endless":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            with contextlib.suppress(OSError):
                for _ in range(2_000):
                    self.wfile.write(b"2000\r\n" + b"x" * 8192 + b"\r\n")
                self.wfile.write(b"0\r\n\r\n")
            return
        self.end_headers()
        self.wfile.write(data[: len(data) // 2])
        self.close_connection = True

    with monkeypatch.context() as patch:
        patch.setattr(FakeHub, "do_GET", answer)
        ended, _ = run(tmp_path, "http://127.0.0.1:9", *words, status=1)
    says = {"endless": "more than 1,000,000 bytes", "without a length": "how many bytes it has"}
    assert says[kind] in ended.stderr
    assert sum(path.stat().st_size for path in (tmp_path / "cache").rglob("*")) < 10**6
    FakeHub.files = {("raw", "x", "prompts.csv"): data}
    assert run(tmp_path, "http://127.0.0.1:9", *words)[1] == local(
        tmp_path, "process_gecko", "gecko"
    )
