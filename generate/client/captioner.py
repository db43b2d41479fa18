"""Find the captions of leased indices: published ones, the prompts file's, or an LLM's.

captioner = Captioner(work, prompter, settings, images_per_prompt=10)
captioner.take_answers()        # what the LLMs have answered is published and queued
captioner.find(index)           # publishes and queues, or asks an LLM
captioner.asking                # {future: index}

Published captions come first: those of a .prompts, or, if it was lost or damaged, of the images'
metadata. An LLM is asked only for the missing ones.
"""

import concurrent.futures
import logging
from typing import cast

from common.command_line import UserError
from common.screening import summary
from generate.client.work import DISK_PAUSE_S, ClientSettings, Index, Work
from generate.dataset import samples
from generate.dataset.caption_check import standing_captions
from generate.dataset.captions import (
    Caption,
    Captions,
    Missing,
    images_wanted,
    publish_captions,
)
from generate.dataset.disk import fault
from generate.dataset.layout import stem
from generate.dataset.screened import Screened, screened
from generate.llms.prompter import Prompter, Variations
from generate.pipelines.text_lengths import FAIL, KEEP, in_words, truncated, unread

log = logging.getLogger(__name__)

FROM_FILE = "prompts file"  # the backend of a caption that no LLM was asked for


class Captioner:
    """prompter: None when no LLM is to be asked."""

    def __init__(self, work: Work, prompter: Prompter | None, settings: ClientSettings) -> None:
        self.work = work
        self.prompter = prompter
        self.settings = settings
        self.asking: dict[concurrent.futures.Future[Variations], Index] = {}

    def find(self, index: Index) -> None:
        """Publish and queue the captions of an index, or ask an LLM for what is missing."""
        if index.over:
            return
        dataset_dir = self.settings.dataset_dir
        prompt = index.item["prompt"]
        wanted = self.settings.images_per_prompt
        try:
            standing = standing_captions(dataset_dir, index.number, prompt, index.files, wanted)
        except OSError as error:
            self._disk_failed(index, error)
            return
        record = standing.record
        whole = record is not None and len(standing.captions) == len(record["texts"])
        if record and whole and images_wanted(record) >= wanted:
            self._publish(index, record["texts"], record["short"])
            return
        judged = screened(self.settings.screen, index.item)
        each = self.settings.images_per_text
        standing_texts = {aug // each: caption for aug, caption in standing.captions.items()}
        if judged.refusal:
            self._refuse(index, standing_texts, judged.refusal)
            return
        index.captions = {0: _caption(prompt, None)} | standing_texts
        texts = wanted // each
        missing = texts - len(index.captions)
        if missing <= 0:
            self._use(index, _in_order(index, []), None)
        elif "variations" in index.item:
            self._use_variations(index, judged, texts)
        else:
            self._ask(index, missing)

    def _refuse(self, index: Index, stands: dict[int, Caption], refusal: str) -> None:
        """Publish that nothing is generated for a prompt, and why. Published captions stay."""
        log.warning("prompt %d is not generated: %s", index.number, refusal)
        captions = [stands[text] for text in range(len(stands)) if text in stands]
        settings = self.settings
        missing = settings.images_per_prompt // settings.images_per_text - len(captions)
        self._use(index, captions, {"missing": missing, "reason": refusal})

    def _use_variations(self, index: Index, judged: Screened, wanted: int) -> None:
        given = enumerate(judged.variations[: wanted - 1], start=1)
        new = [_caption(text, FROM_FILE) for place, text in given if place not in index.captions]
        captions = _in_order(index, new)
        left = wanted - len(captions)
        reason = "the prompts file holds fewer variations"
        if judged.refused:
            reason += f"; refused: {summary(judged.refused)}"
        self._use(index, captions, {"missing": left, "reason": reason} if left > 0 else None)

    def _ask(self, index: Index, missing: int) -> None:
        assert self.prompter is not None, "a prompt without variations has a prompter"
        known = [caption["text"] for place, caption in index.captions.items() if place]
        future = self.prompter.submit(index.item["prompt"], missing, known)
        self.asking[future] = index
        future.add_done_callback(self._wake)

    def _wake(self, _: object) -> None:
        with self.work.changed:
            self.work.changed.notify_all()

    def take_answers(self) -> None:
        """Use what the LLMs have answered. NoBackendLeft: all are disabled for the run."""
        for future in [future for future in self.asking if future.done()]:
            index = self.asking.pop(future)
            if future.cancelled() or index.over:
                continue
            answer = future.result()
            captions = _in_order(index, cast(list[Caption], answer.texts))
            self._use(index, captions, cast(Missing | None, answer.short))

    def has_answers(self) -> bool:
        return any(future.done() for future in self.asking)

    def forget(self) -> None:
        """Ask for nothing more; what is being asked for is forgotten."""
        for future, index in self.asking.items():
            future.cancel()
            self.work.forget(index)
        self.asking.clear()

    def cancel(self) -> None:
        """Ask for nothing more."""
        with self.work.changed:
            for future in self.asking:
                future.cancel()

    def _use(self, index: Index, texts: list[Caption], short: Missing | None) -> None:
        """Each text as the caption of as many images as --images_per_text says, one by one."""
        each = self.settings.images_per_text
        captions = [caption for caption in texts for _ in range(each)]
        if short:
            short = {**short, "missing": short["missing"] * each}
        self._publish(index, captions, short)

    def _publish(self, index: Index, captions: list[Caption], short: Missing | None) -> None:
        """Publish the captions of an index, if none stand, and queue its missing samples."""
        dataset_dir = self.settings.dataset_dir
        record: Captions = {
            "prompt_index": index.number,
            "original_prompt": index.item["prompt"],
            "source": index.item["source"],
            "texts": captions,
            "short": short,
        }
        try:
            index.record = record = publish_captions(dataset_dir, record, index.lease)
            augs = range(len(record["texts"]))
            missing = [aug for aug in augs if self._is_missing(index, aug)]
            todo = self._read_whole(index, missing)
        except OSError as error:
            self._disk_failed(index, error)
            return
        self.work.enqueue(index, todo)

    def _read_whole(self, index: Index, augs: list[int]) -> list[int]:
        """The samples to generate, by what --truncated says of texts that are cut.

        One that is skipped becomes .failed, and nobody is blamed. UserError at the first one where
        that is asked for.
        """
        settings = self.settings
        if settings.truncated == KEEP or settings.lengths is None:
            return augs
        assert index.record is not None
        kept = []
        for aug in augs:
            lengths = settings.lengths(index.record["texts"][aug]["text"])
            if not unread(truncated(lengths), lengths):
                kept.append(aug)
                continue
            why = f"truncated: {in_words(lengths)} tokens"
            name = stem(index.number, aug)
            if settings.truncated == FAIL:
                raise UserError(
                    f"the text of {name} is longer than the model reads ({why}): shorten it, or "
                    "--truncated keep or skip"
                )
            samples.publish_failed(
                settings.dataset_dir, index.number, aug, "truncated", why, index.lease
            )
            log.info("%s is left out: %s", name, why)
            index.truncated += 1
            index.given_up.add(aug)
        return kept

    def _is_missing(self, index: Index, aug: int) -> bool:
        """Whether a sample is to be generated.

        A sample that an earlier holder published by half is completed, a broken one is removed.
        """
        image = aug in index.files.images
        its_json = aug in index.files.jsons
        if (image and its_json) or (aug in index.files.failed and not image):
            return False
        dataset_dir = self.settings.dataset_dir
        if image and samples.roll_forward(dataset_dir, index.number, aug, index.lease):
            return False
        if image or its_json:
            samples.remove_sample(dataset_dir, index.number, aug)
            what = "the image is broken" if image else "its image is gone"
            log.warning("%s: %s; generated again", stem(index.number, aug), what)
        return True

    def _disk_failed(self, index: Index, error: OSError) -> None:
        reason, text = fault(error)
        if reason != "disk":
            # It fails within no time: what others give first tells that it is its own fault.
            self.work.pause(DISK_PAUSE_S)
        self.work.fail(self.work.sample(index, 0), reason, text, at_once=True)


def _in_order(index: Index, new: list[Caption]) -> list[Caption]:
    """The captions of an index: published ones at their places, `new` ones between and after.

    If there are too few new ones to fill a gap, the original prompt fills it: a published caption
    must keep its place.
    """
    left = list(new)
    captions = []
    for aug in range(max(index.captions) + 1):
        if aug in index.captions:
            captions.append(index.captions[aug])
        else:
            captions.append(left.pop(0) if left else index.captions[0])
    return captions + left


def _caption(text: str, backend: str | None) -> Caption:
    return {"text": text, "llm_model_name": None, "backend": backend}
