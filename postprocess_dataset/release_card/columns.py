"""What each column of a release holds, for its card and its Croissant."""

import pyarrow as pa

HOLDS = {
    "image": "the image, as JPEG",
    "caption": "what the image was generated from",
    "original_prompt": "the prompt that the caption is, or is a variation of",
    "__key__": "name of the sample, the same in parquet and tars",
    "prompt_index": "place of the prompt in its file of prompts",
    "augmentation_idx": "number of the caption among those of its prompt; 0: the prompt itself",
    "augmented_prompt": "the same as caption",
    "is_augmented": "whether a language model wrote the caption",
    "model_name": "the image model",
    "llm_model_name": "the language model that wrote the caption; null: none did",
    "height": "pixels",
    "width": "pixels",
    "input_file": "the file of prompts",
    "image_path": "path of the image before it was published",
    "gpu_name": "the device that generated it",
    "generation_timestamp": "when (UTC, ISO 8601)",
    "source": "the sets that the prompt comes from; empty: the prompts file, see input_file",
    "seed": "of the image",
    "num_inference_steps": "steps of the image model",
    "guidance_scale": "strength of its guidance",
    "dtype": "precision",
    "batch_size": "images that were generated together",
    "library_versions": "of torch, diffusers and others",
    "image_sha256": "SHA-256 of the JPEG's bytes, in hex",
    "version": "of the project that generated it",
    "negative_prompt": "what the image was steered away from",
    "jpeg_quality": "0 to 100",
    "text_tokens": "tokens of the caption and the limit, for each text encoder",
    "truncated": "text encoders that did not read the whole caption",
    "model_commit": "revision of the image model on the hub",
    "left_out": "components of the model that were not loaded",
    "scheduler": "of the image model",
    "lora": "adapters of the image model",
    "quantize": "quantization of the image model",
    "quantize_args": "its arguments, as JSON",
    "compiled": "whether the image model was compiled",
    "attention_backend": "of the image model",
    "offload": "what of the image model lay in the memory of the CPU",
    "vae_slicing": "whether the images of a batch were decoded one by one",
    "idx": "number of the row, in the order in which samples were collected",
    "split": "the split it belongs to",
    "extra": "further fields of the sample, as JSON",
    "hostname": "the machine that generated it",
    "slurm_job_id": "its job",
    "lease": "the lease under which it was generated",
    "subdirectory": "folder of the sample before it was published",
}


def holds(name: str) -> str:
    """A sentence on a column; of one that is not known what its name tells."""
    if name.startswith("score_"):
        return f"score of the image: {name.removeprefix('score_')}"
    return HOLDS.get(name, name.replace("_", " "))


def kind_of(field: pa.Field) -> str:
    """The type of a column for people."""
    if field.name == "image":
        return "image"
    if pa.types.is_list(field.type):
        return f"list of {field.type.value_type}"
    return str(field.type)
