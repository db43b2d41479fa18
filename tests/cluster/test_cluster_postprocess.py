"""Both converters as arrays of a real SLURM: independent pieces, one killed, together the whole."""

import io
import json
import os
import sys
from pathlib import Path

from PIL import Image

SCRIPTS = Path(__file__).resolve().parents[2] / "postprocess_dataset"


def make_samples(folder, prompts):
    """Samples of a finished run in sub-folders of 1,000 prompts."""
    for prompt in prompts:
        place = folder / f"{prompt // 1000:06d}" / f"{prompt}_0"
        place.parent.mkdir(parents=True, exist_ok=True)
        image = io.BytesIO()
        Image.new("RGB", (8, 8), (prompt % 256, 7, 7)).save(
            image, "JPEG", comment=str(prompt).encode() + bytes(60_000)
        )
        place.with_suffix(".jpg").write_bytes(image.getvalue())
        place.with_suffix(".json").write_text(
            json.dumps(
                {
                    "prompt_index": prompt,
                    "augmentation_idx": 0,
                    "original_prompt": f"no. {prompt}",
                    "augmented_prompt": f"no. {prompt}",
                    "is_augmented": False,
                    "model_name": "m",
                    "llm_model_name": None,
                    "height": 8,
                    "width": 8,
                    "input_file": "p.json",
                }
            )
        )


def test_pieces_of_both_converters(cluster, tmp_path):
    data = tmp_path / "HPDv2"
    make_samples(data, range(0, 8000, 200))

    def array(tasks, command):
        """The README's line; waits until the tasks have left the queue."""
        (tmp_path / "logs").mkdir(exist_ok=True)
        cluster.run(
            "sbatch",
            "--parsable",
            f"--array={tasks}",
            "--mem=500M",
            "--partition=all",
            f"--output={tmp_path}/logs/%A_%a.out",
            "--wrap",
            command,
            cwd=tmp_path,
        )
        cluster.wait(lambda: not cluster.jobs(), 90, "the array's end")
        return "".join(path.read_text() for path in (tmp_path / "logs").iterdir())

    def here(*words):
        return cluster.run(sys.executable, *words, cwd=tmp_path, check=False)

    convert = (
        f"{sys.executable} {SCRIPTS}/convert_json_to_parquet.py HPDv2 t.parquet "
        "--part $SLURM_ARRAY_TASK_ID/4"
    )
    said = array("0-2", convert)
    here(SCRIPTS / "convert_json_to_parquet.py", "HPDv2", "t.parquet", "--part", "0/4", "--finish")
    assert not (tmp_path / "t.parquet").exists(), "piece 3 is missing, and --finish must say so"
    said = array("3", convert)
    assert "Traceback" not in said
    assert "40 rows of 4 parts" in here(
        SCRIPTS / "convert_json_to_parquet.py", "HPDv2", "t.parquet", "--part", "0/4", "--finish"
    )
    here(SCRIPTS / "convert_json_to_parquet.py", "HPDv2", "whole.parquet")
    import pyarrow.parquet as pq

    assert pq.read_table(tmp_path / "t.parquet").equals(pq.read_table(tmp_path / "whole.parquet"))

    tars = (
        f"{sys.executable} {SCRIPTS}/convert_parquet_to_wds.py --parquet_file t.parquet "
        "--base_dir . --shard_size_mb 1 --output_dir"
    )
    # a node that dies under its task
    killed = "if [ $SLURM_ARRAY_TASK_ID = 1 ] && [ ! -e once ]; then touch once; kill -9 $$; fi; "
    said = array("0-2", f"{killed}{tars} tars --part $SLURM_ARRAY_TASK_ID/3")
    here(*tars.split()[1:], "tars", "--part", "0/3", "--finish")
    assert not (tmp_path / "tars/index.json").exists()
    said = array(
        "0-2", f"{killed}{tars} tars --part $SLURM_ARRAY_TASK_ID/3"
    )  # the same line again does only what is missing
    assert "Traceback" not in said
    assert "40 images" in here(*tars.split()[1:], "tars", "--part", "0/3", "--finish")
    here(*tars.split()[1:], "whole")
    names = sorted(os.listdir(tmp_path / "whole"))
    assert (
        sorted(os.listdir(tmp_path / "tars")) == names
        and sum(name.endswith(".tar") for name in names) >= 3
    )
    assert all(
        (tmp_path / "tars" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
        for name in names
    )
