"""--speed: what a preset stands for, and that nothing changes images unseen."""

from argparse import Namespace

import pytest

from common.command_line import UserError
from generate.image_models import model_check
from generate.launch import speed

PLAIN = {"compile": False, "attention": None, "quantize": None, "quantize_args": None}


def applied(preset, **given):
    args = Namespace(speed=preset, **(PLAIN | given))
    speed.apply(args)
    return vars(args)


def test_presets():
    assert applied("exact") == PLAIN | {"speed": "exact"}
    assert applied("exact", compile=True)["compile"] is True
    fast = applied("fast")
    assert (fast["compile"], fast["attention"], fast["quantize"]) == (True, "_native_cudnn", None)
    faster = applied("faster")
    assert faster["quantize"] == "torchao" and "Float8" in faster["quantize_args"]
    assert applied("faster", **{k: faster[k] for k in PLAIN}) == faster, "a stored run.yaml"
    with pytest.raises(UserError, match="--speed fast means --attention _native_cudnn"):
        applied("fast", attention="sage")


def test_a_missing_package_is_found_before_anything_starts(monkeypatch):
    model_check.check_quantization(None)
    monkeypatch.setattr(model_check.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install torchao"):
        model_check.check_quantization("torchao")


def test_other_speed_is_another_data_set_where_it_changes_images(start_run):
    """The definition has quantization and attention: a data set of one does not take the other."""
    run, _server = start_run(total=2, images=2)
    assert run.start().wait(60) == 0, run.log()
    for option, value, field in (
        ("--speed", "fast", "attention"),
        ("--attention", "sage", "attention"),
        ("--quantize", "quanto", "quantize"),
        ("--quantize_args", '{"weights_dtype": "int4"}', "quantize_args"),
    ):
        refused = run.run(option, value)
        assert refused.returncode == 1 and refused.stderr.count("\n") == 1
        assert f"{field} is '" in refused.stderr, refused.stderr
