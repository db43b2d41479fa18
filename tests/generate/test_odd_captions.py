"""What others put in the place of a prompt's captions costs that prompt's captions, not the run."""

import errno
import json
import os
import time

import pytest

from generate.client.captioner import Captioner
from generate.client.origins import MOST_LLMS, OTHERS, origins_of
from generate.client.publisher import Publisher
from generate.client.result import result_of
from generate.client.work import DISK_PAUSE_S, ClientSettings, Index
from generate.dataset import captions
from generate.dataset.captions import is_captions, publish_captions, read_captions
from generate.dataset.layout import captions_path
from generate.dataset.links import set_aside
from generate.dataset.scan import IndexFiles, scan_folder
from generate.protocol.connection import Refused
from generate.server.folders import index_done
from tests.generate.test_client_publisher import Bench, FakeJob

PROMPT = "a painting of bird number {}"


def record(index, **changes):
    text = {"text": PROMPT.format(index), "llm_model_name": None, "backend": None}
    whole = {"prompt_index": index, "original_prompt": text["text"], "source": ["birds"]}
    return whole | {"texts": [text], "short": None} | changes


def test_odd_captions_hold_up_no_run(start_run):
    """A late number would be counted up to; a huge or negative count no server takes."""
    run, _server = start_run(total=6, images=2)
    folder = run.data / "000000"
    folder.mkdir(parents=True)
    (folder / "0.prompts1000000000").touch()
    (folder / "1.prompts999").touch()
    for index, missing in ((2, 1_000_000), (3, -5)):
        short = {"missing": missing, "reason": "x"}
        (folder / f"{index}.prompts").write_text(json.dumps(record(index, short=short)))
    text = record(4)["texts"][0] | {"llm_model_name": "\ud800"}
    (folder / "4.prompts").write_text(
        json.dumps(record(4, texts=[text, text | {"text": "a bird"}]))
    )
    bare = [{"text": PROMPT.format(5)}, {"text": "a bird"}]  # nobody says who wrote them
    unsaid = record(5)
    del unsaid["short"]
    (folder / "5.prompts").write_text(json.dumps(unsaid | {"texts": bare}))
    assert run.start().wait(90) == 0, run.log()
    run.check()
    assert "refused" not in run.log()


def test_a_broken_newer_record_of_a_done_prompt_counts_for_nothing(tmp_path):
    """Else the prompt is done by the older one, and incomplete by the newer one."""
    (tmp_path / "000000").mkdir()
    (tmp_path / "000000" / "3.prompts").write_text(json.dumps(record(3)))
    for odd in ("", "{}", "[" * 9):
        (tmp_path / "000000" / "3.prompts2").write_text(odd)
        files = scan_folder(tmp_path, 0)[3]
        assert (files.captions, files.short, files.generation) == (1, None, 2)
        assert read_captions(tmp_path, 3) == record(3)


def test_captions_of_another_user_cost_no_other_prompt(tmp_path, monkeypatch):
    """The server answered 503 to the reports of all, and compared none of the folder's prompts."""
    forbidden = []

    def closed(path, limit):
        if path in forbidden:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return path.read_bytes()

    monkeypatch.setattr(captions, "read_file", closed)
    first = publish_captions(tmp_path, record(3), "1-1")
    newer = captions_path(tmp_path, 3, 2)
    newer.touch()
    forbidden = [newer]
    assert read_captions(tmp_path, 3) == first and scan_folder(tmp_path, 0)[3].captions == 1
    forbidden = [captions_path(tmp_path, 3), newer]
    assert read_captions(tmp_path, 3) is None and not index_done(tmp_path, 3, 1)
    monkeypatch.setattr(os, "access", lambda place, mode: False)
    with pytest.raises(PermissionError):  # nobody may write there: it is the folder's fault
        read_captions(tmp_path, 3)


def test_prompts_whose_files_are_in_the_way_make_no_pause_longer(tmp_path):
    """Each doubled the pause of a failed disk, so that good prompts waited for minutes."""
    bench = Bench(tmp_path, FakeJob())
    settings = ClientSettings(tmp_path, 1, bench.work.recipes)
    captioner = Captioner(bench.work, None, settings)
    for number in range(20):
        index = Index(number, "1-1", {"prompt": "a bird"}, IndexFiles(), 1, record=record(number))
        captioner._disk_failed(index, OSError(errno.ELOOP, "in the way", str(tmp_path / "x")))
    assert bench.work.next_lease_at - time.monotonic() <= DISK_PAUSE_S
    assert bench.work.pause_for_disk() == DISK_PAUSE_S, "no failure of the disk was counted"


def test_what_may_have_no_second_link_is_renamed(tmp_path, monkeypatch):
    """The kernel protects links: a file of another user takes none, but may be renamed."""

    def refuse(source, target):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), str(source))

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "3.prompts").touch()
    aside = set_aside(tmp_path / "3.prompts", "broken")
    assert [path.name for path in tmp_path.iterdir()] == [aside.name] == ["3.prompts.broken"]


def test_a_failed_of_more_captions_is_none_of_this_prompt():
    """Of a run with more images: -1 images were reported, and the report was refused."""
    index = Index(3, "1-1", {}, IndexFiles(images={0}, failed={0, 5, 6}), 1, record=record(3))
    assert result_of(index, {})["images"] == 1


@pytest.mark.parametrize("missing", [-1, 100_001, True, None, "1"])
def test_a_count_that_no_server_takes_is_no_record(missing):
    assert not is_captions(record(3, short={"missing": missing, "reason": "x"}), 3)
    assert is_captions(record(3, short={"missing": 7, "reason": "x"}), 3)


def test_a_text_that_no_image_can_carry_is_no_caption():
    """A client drew it for minutes, before it was found to be too long."""
    text = {"text": "ab" * 300_000, "llm_model_name": None, "backend": None}
    assert not is_captions(record(3, texts=[text]), 3)
    assert is_captions(record(3, texts=[text | {"text": "ab" * 30_000}]), 3)


def test_captions_of_many_llms_are_counted_together():
    texts = [{"text": "a bird", "llm_model_name": f"m{n % 60}", "backend": "b"} for n in range(180)]
    llms = origins_of(record(3, texts=texts), set(), {})["llm"]
    assert len(llms) == MOST_LLMS + 1 and llms["m0"] == [3, 3, 0]
    assert llms[OTHERS] == [60, 60, 0]


class RefusingJob(FakeJob):
    """Refuses each call that reports prompt 3 as done, or prompt 5 as failed."""

    def complete(self, lease, results):
        if any(result["index"] == 3 for result in results):
            raise Refused("results[0].images must be a whole number")
        self.completed.append(results)
        return {result["index"]: "accepted" for result in results}

    def fail(self, lease, results):
        if any(result["index"] == 5 for result in results):
            raise Refused("results[0].error must be a text")
        return super().fail(lease, results)

    def stop_waiting(self):
        pass


def test_a_report_that_is_refused_costs_its_own_prompt(tmp_path, monkeypatch):
    bench = Bench(tmp_path, RefusingJob())
    monkeypatch.setattr("generate.client.publisher.publish_collected", lambda *given: True)
    (tmp_path / "000000").mkdir()
    for batch in ((2, 3, 4), (6, 5, 7)):
        for number in batch:
            index = bench.index.__class__(**vars(bench.index) | {"number": number})
            index.failures = {0: ("prompt", "no image")} if number == 5 else {}
            index.record = record(number)
            bench.work.ended.put(index)
        bench.work.ended.put(None)
        Publisher._report_on(bench.publisher)
    done = [each["index"] for results in bench.job.completed for each in results]
    assert sorted(done) == [2, 4, 6, 7]
    assert bench.publisher.completed == 4, "each is counted once"
    ((failed),) = bench.job.failed
    assert failed["index"] == 3 and failed["reason"] == "prompt" and "refused" in failed["error"]
