"""Licences of image models and LLMs: every family has one, special cases come first."""

import pytest

from common.model_terms import IMAGE_MODELS, LLMS, terms_of_llm, terms_of_model
from generate.image_models.model_recipes import family_of
from generate.image_models.model_table import FAMILIES

MODELS = {
    "stabilityai/stable-diffusion-3-medium-diffusers": "Stability AI Community License",
    "stabilityai/sdxl-turbo": "Stability AI, non-commercial",
    "stabilityai/stable-diffusion-xl-base-1.0": "CreativeML Open RAIL++-M",
    "black-forest-labs/FLUX.1-schnell": "Apache-2.0",
    "black-forest-labs/FLUX.1-dev": "FLUX.1 non-commercial",
    "black-forest-labs/FLUX.2-klein-4B": "Apache-2.0",
    "black-forest-labs/FLUX.2-klein-9B": "FLUX non-commercial",
    "Qwen/Qwen-Image": "Apache-2.0",
    "tiny": "Apache-2.0 (this project's own)",
}
LANGUAGE_MODELS = {
    "llama3.1": "Llama Community License",
    "deepseek-r1-distill-llama-70b": "Llama Community License",
    "openai/gpt-oss-20b": "Apache-2.0",
    "openai/gpt-4o-mini": "OpenAI terms of use",
    "SmolLM2-135M-Instruct": "Apache-2.0",
    "mistral:7b": "Apache-2.0",
    "qwen2.5:7b": "Apache-2.0",
}


@pytest.mark.parametrize("model, licence", MODELS.items())
def test_licence_of_an_image_model(model, licence):
    assert terms_of_model(model).licence == licence == family_of(model).licence


@pytest.mark.parametrize("model, licence", LANGUAGE_MODELS.items())
def test_licence_of_an_llm(model, licence):
    assert terms_of_llm(model).licence == licence


@pytest.mark.parametrize("model", ["mistral-large", "qwen2.5:72b", "someone/of-their-own"])
def test_what_is_not_known_has_no_terms(model):
    assert terms_of_llm(model) is None and terms_of_model(model) is None


@pytest.mark.parametrize("row", FAMILIES, ids=lambda row: row.name)
def test_every_family_has_terms_under_its_own_name(row):
    assert terms_of_model(row.name) is not None


def test_what_licences_say_of_training_on_the_images():
    """As their texts have it, which differ."""
    for model, words in {
        "stabilityai/stable-diffusion-3.5-large": "train a foundation model",
        "stabilityai/sdxl-turbo": "trained on its images as derived from it",
        "black-forest-labs/FLUX.2-dev": "no model that competes with it",
        "tencent/HunyuanImage-2.1": "forbids to train other models",
    }.items():
        assert words in terms_of_model(model).notice


def test_what_is_not_free_has_a_notice_and_says_where_to_read():
    for row in (*IMAGE_MODELS, *LLMS):
        assert (row.notice is None) == (row.url is None)
