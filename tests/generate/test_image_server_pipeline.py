"""The example pipeline that asks an image server: a real client, FakeImageServers on sockets."""

import json

from tests.fakes import running_client
from tests.fakes.fake_image_server import FakeImageServer

PIPELINE = f"{running_client.ROOT}/examples/image_server_pipeline.py:ImageServer"
OPTIONS = ("--pipeline", PIPELINE, "--model", "Tongyi-MAI/Z-Image-Turbo")


def test_a_data_set_from_image_servers(start_run):
    """Two servers share the work; one that is away at first is asked again."""
    with FakeImageServer() as one, FakeImageServer() as other:
        one.away(3)
        run, _server = start_run(
            total=4, images=3, IMAGES_URLS=f"{one.url},{other.url}/", IMAGES_API_KEY="k-7"
        )
        assert run.start(*OPTIONS).wait(90) == 0, run.log()
        run.check()
    assert min(len(one.asked), len(other.asked)) > 3, "both were asked"
    asked = one.asked[-1]
    assert asked["size"] == "32x32" and asked["num_inference_steps"] == 8
    assert asked["model"] == "Tongyi-MAI/Z-Image-Turbo" and asked["key"] == "Bearer k-7"
    assert 0 <= asked["seed"] < 2**31
    record = json.loads((run.data / "000000" / "2_1.json").read_text())
    assert record["library_versions"] == "image server 7.7-fake"
    assert record["dtype"] == "as served" and record["gpu_name"].startswith("image server 127")


def test_a_text_that_the_server_refuses_is_the_prompts_fault(start_run):
    with FakeImageServer() as fake:
        run, server = start_run(total=3, images=2, IMAGES_URLS=fake.url, server=["--max_marks", 1])
        items = json.loads((run.folder / "birds.json").read_text())
        items[1]["variations"] = ["an unspeakable bird"] * 9
        (run.folder / "birds.json").write_text(json.dumps(items))
        assert run.start(*OPTIONS).wait(90) == 3, run.log()
        run.check(given_up={"1_1"})
        assert server.dataset("birds")["set_aside"] == 1
        mark = json.loads((run.data / "000000" / "1_1.failed").read_text())
        assert mark["reason"] == "prompt" and "the prompt is refused" in mark["error"]


def test_without_an_address_it_says_what_is_missing(start_run):
    run, _server = start_run(total=2, images=2)
    ended = run.run(*OPTIONS, task=False)
    assert ended.returncode == 1 and "IMAGES_URLS is not set" in ended.stderr, ended.stderr
    assert "Traceback" not in ended.stderr
