"""Small source files in the five real schemas, for the demo and for trying the processors.

    python examples/make_examples.py    # rewrites examples/{image_reward,sac,…}/ and shapes.json

Prompts in the tiny model's grammar and ordinary ones, with the defects of the real files: one row
for each image (so prompts repeat), tokenised spacing, chat debris, mojibake, generator syntax, a
prompt that the filters drop, one that is also in the validation set. All prompts were written for
this project. The same bytes on every run with the same pyarrow and SQLite.
"""

import csv
import json
import random
import sqlite3
from datetime import datetime, timedelta
from pathlib import Path

HERE = Path(__file__).resolve().parent

IMAGE_REWARD = {  # tokenised spacing and blanks at the end, as ImageRewardDB's prompts have
    "train": [
        "a red circle above a blue square on a green background ",
        "a large yellow triangle on a black background ",
        "a green square at the left on a white background ",
        "two blue circles on a yellow background ",
        "portrait of an old sailor, intricate, highly detailed, digital painting, "
        "sharp focus, 8 k ",
        "a lighthouse in a storm, photograph, 3 5 mm, f 1. 4, long exposure ",
        "a sci - fi city at dusk, award - winning matte painting, cinema 4 d ",
        "a street diner in the 1 9 8 0 s, ( ( neon signs ) ), wet asphalt , 1 6 : 9 ",
        "4 knights riding through a misty forest, oil on canvas ",
        "a poster for 2 0 0 1 a space odyssey, 3 d, isometric ",
        "a teapot shaped like a small house, watercolor ",
        "a teapot shaped like a small house , watercolor ",
    ],
    "validation": [
        "a small white square on a red background ",
        "a cathedral made of ice, artist\u2019s impression\uff0c soft light, 4 k hd ",
    ],
    "test": [
        "a fox asleep in a library, hyperrealistic, trending on artstation",
        "three green triangles on a black background",
    ],
}

SAC = [
    "a blue triangle below a yellow circle on a red background",
    "a white circle to the left of a black square on a blue background",
    "four red squares on a white background",
    "a small green circle on a yellow background",
    "world tree",
    "world tree",
    "World Tree",
    "the world tree growing on a floating island, oil painting",
    "a caf\u00e9 by the sea in the style of a travel poster",
    "tiny:: island:: with a lighthouse",
    "quiet harbor at dawn #sea #morning",
    "a robot\nreading a newspaper\nin the rain",
    "a painting of nude bathers at a river",
]

PICKSCORE = [
    "a yellow square to the right of a red triangle on a black background",
    "a black circle at the top on a white background",
    "three blue squares on a green background",
    "a large red circle on a blue background",
    "Cute corgi wearing a space suit --ar 16:9 --v 5",
    "a wizard, (glowing staff:1.3), ((dark forest)), <lora:wizard_v2:0.8>",
    "/imagine prompt: a paper boat on a puddle \u2014ar 3:2",
    "https://example.org/cat.png a cat in the style of this picture",
    "an owl made of gears\nNegative prompt: blurry, low quality\n"
    "Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 42",
    "A  portrait of a   violinist\u00a0on stage, \u201cspotlight\u201d",
    "salt &amp; pepper shakers shaking hands",
    "a family \U0001f468\u200d\U0001f469\u200d\U0001f467 having a picnic",
    "\u0437\u0438\u043c\u043d\u0438\u0439 \u043b\u0435\u0441 \u043d\u043e\u0447\u044c\u044e",
    "a naked woman lying on a bed, nsfw",
    "dog",
    "Zwei Hunde spielen im Garten hinter dem alten Haus",
    "a portrait of a queen, highly detailed, artstation, sharp focus, 8k",
    "a portrait of a toad, highly detailed, artstation, sharp focus, 8k",
    "a bicycle parked outside a bakery",
]
PICKSCORE_LATER = [
    "a snail carrying a tiny greenhouse on its back, macro photograph",
    "a snail carrying a tiny greenhouse on its back, macro photograph, soft light",
    "a blue square on a white background",
]

HPDV2 = {
    "anime": [
        "A red triangle above a white square on a blue background",
        "A girl with silver hair flies a kite over a seaside town.",
        '"A dragon asleep on a heap of comic books."',
        "The image depicts a cat caf\u00e9 run by robots.",
        "features two fox spirits sharing an umbrella in the snow.",
    ],
    "concept-art": [
        "two yellow triangles on a red background",
        "The image is of a desert outpost built from old ships.",
        "A sunken temple lit by jellyfish. \n\nThe description without modifiers, a sunken temple.",
        "A market street on the back of a giant turtle.",
        "of a lantern-lit canal between two cliffs.",
    ],
    "paintings": [
        "a green triangle to the left of a yellow square on a white background",
        "A still life with pears in the style of Simon St\u00e5lenhag.",
        "A painting of a windmill by Vel\u00c3\u00a1zquez.",
        "A lemon wearing sunglasses on the pier.",
        "A lemon wearing sunglasses on the pier.",
    ],
    "photo": [
        "a black square on a yellow background ",
        " Two people walk a dog past a red  telephone box",
        "A plate of noodles next to a glass of tea. ",
        "A man rides a wave on a yellow surfboard",
        "A lemon wearing sunglasses on the pier.",
    ],
}
DRAWBENCH = ["A drawing prompt that must never be read: it belongs to a validation set."]

GECKO = [
    ("ne/landmarks:landmarks", "a snowy mountain seen from a train window", "Gecko(S)", True),
    ("att/count:simple_numeric", "two chairs beside a round table", "Gecko(S)", True),
    ("att/count:simple_numeric", "dog", "Gecko(S)", True),
    ("spatial:simple", "a bicycle parked outside a bakery", "Gecko(S)", True),
    ("text:drawn", 'the word "HELLO" written in the sand', "Gecko(S)", False),
    ("tifa_45", "a bridge\u00a0over a\u00a0river in  T\u00fcbingen", "Gecko(R)", True),
    (
        "diffusiondb_3",
        "a tower at the edge of the world, nr. 1 2, matte painting, 4 k",
        "Gecko(R)",
        False,
    ),
    (
        "posescript_7",
        "the person is kneeling with the left arm raised above the head",
        "Gecko(R)",
        True,
    ),
    ("whoops_12", "a candle burning under water", "Gecko(R)", True),
    ("tifa_46", "the old clock tower in the morning fog", "Gecko(R)", True),
    ("tifa_47", "the old clock tower in the morning fog", "Gecko(R)", False),
]

SHAPES = [
    "a red circle above a blue square on a green background",
    "a large yellow triangle on a black background",
    "two blue circles on a yellow background",
    "a green square at the left on a white background",
    "a white circle to the left of a black square on a blue background",
    "four red squares on a white background",
    "a yellow square to the right of a red triangle on a black background",
    "a small white square on a red background",
]


def main() -> None:
    rng = random.Random(0)
    image_reward(rng)
    sac(rng)
    pickscore(rng)
    for style, prompts in ({**HPDV2, "drawbench": DRAWBENCH}).items():
        written("hpdv2", f"{style}.json").write_text(json.dumps(prompts))
    gecko()
    (HERE / "shapes.json").write_text(json.dumps(SHAPES, indent=1) + "\n")


def written(folder: str, name: str) -> Path:
    (HERE / folder).mkdir(exist_ok=True)
    return HERE / folder / name


def image_reward(rng: random.Random) -> None:
    """ImageRewardDB: one row an image, so a prompt repeats 4-9 times."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    for split, prompts in IMAGE_REWARD.items():
        rows = []
        for number, prompt in enumerate(prompts):
            amount = rng.randint(4, 9)
            for rank in range(1, amount + 1):
                rows.append(
                    {
                        "image_path": f"images/{split}/{split}_1/{rng.getrandbits(128):032x}.webp",
                        "prompt_id": f"{number:06d}-{rng.randrange(9999):04d}",
                        "prompt": prompt,
                        "classification": rng.choice(["People", "Outdoor Scenes", "Arts"]),
                        "image_amount_in_total": amount,
                        "rank": rank,
                        "overall_rating": rng.randint(1, 7),
                        "image_text_alignment_rating": rng.randint(1, 7),
                        "fidelity_rating": rng.randint(1, 7),
                    }
                )
        pq.write_table(
            pa.Table.from_pylist(rows),
            written("image_reward", f"metadata-{split}.parquet"),
            compression="zstd",
        )


def sac(rng: random.Random) -> None:
    """Simulacra Aesthetic Captions: the tables of the public SQLite.

    A prompt is asked for several times and gives several images.
    """
    path = written("sac", "sac_public_2022_06_29.sqlite")
    path.unlink(missing_ok=True)
    database = sqlite3.connect(path)
    database.executescript("""
        CREATE TABLE survey (id INTEGER, qid INTEGER, rating INTEGER, PRIMARY KEY(id, qid));
        CREATE TABLE generations (id INTEGER PRIMARY KEY, sid INTEGER, method INTEGER, \
prompt TEXT, verified INTEGER);
        CREATE TABLE images (id INTEGER PRIMARY KEY AUTOINCREMENT, gid INTEGER, idx INTEGER,
            FOREIGN KEY(gid) REFERENCES generations(id), UNIQUE(gid, idx));
        CREATE TABLE paths (iid INTEGER, path TEXT, FOREIGN KEY(iid) REFERENCES images(id));
        CREATE TABLE ratings (sid INTEGER, iid INTEGER, rating INTEGER, \
verified INTEGER, FOREIGN KEY(iid) REFERENCES images(id));
        CREATE TABLE upscales (iid INTEGER PRIMARY KEY, method INTEGER, \
FOREIGN KEY(iid) REFERENCES images(id));""")
    for number, prompt in enumerate(SAC):
        gid = 3 * number  # the real ids have gaps
        database.execute(
            "INSERT INTO generations VALUES (?, ?, ?, ?, ?)",
            (gid, rng.randrange(400), rng.choice([2, 3]), prompt, 1),
        )
        for idx in range(2):
            iid = database.execute(
                "INSERT INTO images (gid, idx) VALUES (?, ?)", (gid, idx)
            ).lastrowid
            database.execute(
                "INSERT INTO paths VALUES (?, ?)",
                (iid, f"{gid}_{prompt.replace(' ', '_').replace('/', '_')}_{idx}.png"),
            )
            database.execute(
                "INSERT INTO ratings VALUES (?, ?, ?, ?)",
                (rng.randrange(400), iid, rng.randint(1, 10), 1),
            )
    database.commit()
    database.close()


def pickscore(rng: random.Random) -> None:
    """Pick-a-Pic v1 and v2 without images, all 17 columns.

    A row is a comparison of two images, and v2 holds v1's rows again.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, number = pa.string(), pa.int64()
    schema = pa.schema(
        [
            ("are_different", pa.bool_()),
            ("best_image_uid", text),
            ("caption", text),
            ("created_at", pa.timestamp("ns")),
            ("has_label", pa.bool_()),
            ("image_0_uid", text),
            ("image_0_url", text),
            ("image_1_uid", text),
            ("image_1_url", text),
            ("label_0", pa.float64()),
            ("label_1", pa.float64()),
            ("model_0", text),
            ("model_1", text),
            ("ranking_id", number),
            ("user_id", number),
            ("num_example_per_prompt", number),
            ("__index_level_0__", number),
        ]
    )

    def write(name: str, prompts: list[str]) -> None:
        rows = []
        for prompt in prompts:
            repeats = rng.randint(1, 3)
            for _ in range(repeats):
                uids = [f"{rng.getrandbits(128):032x}" for _ in range(2)]
                urls = [f"https://example.org/{uid}.png" for uid in uids]
                win = rng.choice([0.0, 0.5, 1.0])
                rows.append(
                    (
                        True,
                        uids[win == 0.0],
                        prompt,
                        datetime(2023, 1, 1) + timedelta(hours=len(rows)),
                        win != 0.5,
                        uids[0],
                        urls[0],
                        uids[1],
                        urls[1],
                        win,
                        1 - win,
                        "stabilityai/stable-diffusion-2-1",
                        "dreamlike-art/dreamlike-photoreal-2.0",
                        len(rows),
                        rng.randrange(5000),
                        repeats,
                        len(rows),
                    )
                )
        columns = [
            pa.array(column, field.type)
            for column, field in zip(zip(*rows, strict=True), schema, strict=True)
        ]
        pq.write_table(
            pa.Table.from_arrays(columns, schema=schema),
            written("pickscore", name),
            compression="zstd",
        )

    write("pickapic_v1_train-00000-of-00001.parquet", PICKSCORE)
    write("pickapic_v1_test-00000-of-00001.parquet", PICKSCORE[:1])
    write("pickapic_v2_train-00000-of-00001.parquet", PICKSCORE + PICKSCORE_LATER)
    write("pickapic_v2_validation-00000-of-00001.parquet", PICKSCORE_LATER[:1])


def gecko() -> None:
    names = [
        "max_disagreement_less_0.3",
        "max_disagreement_less_0.35",
        "max_disagreement_less_0.4",
        "max_disagreement_less_0.45",
        "max_disagreement_less_0.5",
        "v1_max_disagreement_less_0.45",
    ]
    with open(written("gecko", "prompts.csv"), "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["", "dataset_id", "prompt", "prompt_type", "prompt_id", *names])
        for number, (dataset_id, prompt, kind, reliable) in enumerate(GECKO):
            writer.writerow([number, dataset_id, prompt, kind, number, *[reliable] * len(names)])


if __name__ == "__main__":
    main()
