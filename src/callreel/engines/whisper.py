"""Whisper through CTranslate2: the main engine. faster-whisper gives features and tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import ctranslate2
import msgspec
import numpy as np
from faster_whisper import WhisperModel
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_ctranslate2_storage

from callreel.audio.pcm import SAMPLE_RATE, samples, seconds
from callreel.engines import shelf
from callreel.engines.base import Capabilities, Decoded, DecodeOptions, EngineSpec, Window, as_float
from callreel.engines.languages import code_of
from callreel.engines.park import Park
from callreel.engines.whisper_device import load_model
from callreel.engines.whisper_text import (
    Hypothesis,
    aligned_words,
    decode_stats,
    estimated_words,
    mean_probability,
    prompt_tokens,
)
from callreel.errors import InvalidInput, ModelMissing
from callreel.text import DecodeStats, Word

HOP_LENGTH = 160  # samples a mel frame
SAMPLES_PER_STEP = 320  # samples an encoder position: the encoder halves the mel frames
MAX_WINDOW_S = 30.0  # positions of the encoder: no weights take more
MAX_NEW_TOKENS = 224  # half of Whisper's text context, as in the original
MAX_CONTEXT = 448
TOKENS_PER_SECOND = 12  # more than anybody says; what is beyond it is a loop, and every looped token costs time
RELEASED_MIN_WINDOW_S = 10.0  # released weights were trained on 30 s; `docs/why.md` has the measure
BATCH = {"cpu": 4, "cuda": 16}


def load(spec: EngineSpec) -> WhisperEngine:
    """Load `spec.model`: a released model's name, a hub repository id, an imported model's name, or a folder.

    Raises ModelMissing if it is not here and may or can not be fetched, InvalidInput for a name that nobody knows and
    for a device or compute type that this machine has not.
    """
    folder = find_model(spec)
    missing = shelf.lacking(folder)
    if missing:
        raise ModelMissing(
            f"There is no whole Whisper model in {folder}: it lacks {' and '.join(missing)}", hint=shelf.HOW_TO_CONVERT
        )
    card = ModelCard.read(folder)
    model = load_model(spec, folder)
    return WhisperEngine(
        model,
        name=folder.resolve().name if shelf.is_folder(spec.model) else shelf.canonical(spec.model),
        card=card,
        min_window_s=spec.min_window_s,
        parallel=spec.threads,
        park_after_s=spec.park_after_s,
    )


def find_model(spec: EngineSpec) -> Path:
    """The folder of a model on this machine, fetched if it may be. Raises as `load` does."""
    models_folder = Path(spec.models_folder)
    here = shelf.find(spec.model, models_folder)
    if here is not None:
        return here.folder
    if spec.download and shelf.repository_of(spec.model) is not None:
        from callreel.engines.download import pull  # its HTTP library is not needed by those who have their model

        return pull(spec.model, models_folder, hub=spec.hub_url, proxy=spec.proxy)
    raise shelf.missing(spec.model, models_folder)


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What we know of one set of weights, kept as `callreel.json` beside them; defaults fit released Whisper."""

    min_window_s: Annotated[float, msgspec.Meta(ge=0, le=MAX_WINDOW_S)] = RELEASED_MIN_WINDOW_S
    max_window_s: Annotated[float, msgspec.Meta(ge=1, le=MAX_WINDOW_S)] = MAX_WINDOW_S
    languages: tuple[str, ...] = ()
    title: str = ""

    @classmethod
    def read(cls, folder: Path) -> ModelCard:
        """Raises ModelMissing for a card that cannot be read."""
        path = folder / "callreel.json"
        if not path.exists():
            return cls()
        try:
            return msgspec.json.decode(path.read_bytes(), type=cls)
        except (msgspec.DecodeError, OSError) as error:
            raise ModelMissing(f"The model's card {path} cannot be read: {error}") from error


class WhisperEngine:
    """Greedy or beam decodes of batches. Loops over temperatures and context live in `offline/`, not here."""

    name = "whisper"

    def __init__(
        self,
        model: WhisperModel,
        *,
        name: str,
        card: ModelCard,
        min_window_s: float | None = None,
        parallel: int = 1,
        park_after_s: float = 0.0,
    ) -> None:
        self.model = name
        self._whisper = model
        device = model.model.device
        floor = card.min_window_s if min_window_s is None else min_window_s
        self.capabilities = Capabilities(
            batch=BATCH.get(device, 1),
            parallel=parallel,
            word_times=True,
            translate=model.model.is_multilingual,
            min_window_s=min(floor, MAX_WINDOW_S),
            max_window_s=card.max_window_s,
            languages=card.languages or (() if model.model.is_multilingual else ("en",)),
        )
        self._park: Park | None = None
        if device == "cuda" and park_after_s > 0:
            unload, come_back = model.model.unload_model, model.model.load_model
            self._park = Park(lambda: unload(to_cpu=True), come_back, after_s=park_after_s)

    def decode(self, windows: Sequence[Window], options: DecodeOptions) -> list[Decoded]:
        """As `Engine.decode`. Raises InvalidInput for a window over 30 s, and a language or task Whisper has not."""
        if not windows:
            return []
        longest_s = seconds(max(len(window.pcm) for window in windows))
        if longest_s > MAX_WINDOW_S:
            raise InvalidInput(f"Whisper takes windows of at most {MAX_WINDOW_S:.0f} s, not of {longest_s:.2f} s")
        with self._park.in_use() if self._park else nullcontext():
            return self._decode(windows, options)

    def _decode(self, windows: Sequence[Window], options: DecodeOptions) -> list[Decoded]:
        encoded = self._encode(windows)
        languages = self._languages(encoded, len(windows), options)
        tokenizers = {language: self._tokenizer(language, options) for language in {found for found, _ in languages}}
        prompts = [
            prompt_tokens(tokenizers[language], window.prompt, options.hotwords)
            for window, (language, _) in zip(windows, languages, strict=True)
        ]
        # CTranslate2 wants the start tokens at one position in all rows of a batch; alignment wants one language.
        groups: dict[tuple[str, int], list[int]] = {}
        for i, ((language, _), prompt) in enumerate(zip(languages, prompts, strict=True)):
            groups.setdefault((language, len(prompt)), []).append(i)
        decoded: dict[int, Decoded] = {}
        for (language, _), rows in groups.items():
            part = encoded if len(rows) == len(windows) else _rows(encoded, rows)
            durations = [seconds(len(windows[i].pcm)) for i in rows]
            spoken = self._generate(part, [prompts[i] for i in rows], durations, tokenizers[language], options)
            for i, (words, stats) in zip(rows, spoken, strict=True):
                decoded[i] = Decoded(tuple(words), language, round(languages[i][1], 4), stats)
        return [decoded[i] for i in range(len(windows))]

    def _tokenizer(self, language: str, options: DecodeOptions) -> Tokenizer:
        multilingual = self._whisper.model.is_multilingual
        if options.task == "translate" and not multilingual:
            raise InvalidInput(f"The model {self.model!r} knows English only and cannot translate", field="task")
        try:
            return Tokenizer(self._whisper.hf_tokenizer, multilingual, task=options.task, language=language)
        except ValueError as error:
            raise InvalidInput(str(error)) from error

    def _encode(self, windows: Sequence[Window]) -> ctranslate2.StorageView:
        longest = max(len(w.pcm) for w in windows)
        padded = max(longest, samples(self.capabilities.min_window_s), SAMPLE_RATE)
        padded = -(-padded // SAMPLES_PER_STEP) * SAMPLES_PER_STEP
        batch = np.zeros((len(windows), padded), np.float32)
        for row, window in zip(batch, windows, strict=True):
            row[: len(window.pcm)] = as_float(window.pcm)
        extract = self._whisper.feature_extractor
        features = np.stack([extract(row, padding=0)[:, : padded // HOP_LENGTH] for row in batch])
        model = self._whisper.model
        if model.device != "cpu" or len(features) == 1:
            return model.encode(get_ctranslate2_storage(features))
        # One by one it is no slower, and needs the memory of one: an attention matrix is 54 MB for 30 s of tiny.
        encoded = [np.array(model.encode(get_ctranslate2_storage(row[None]))) for row in features]
        return ctranslate2.StorageView.from_array(np.concatenate(encoded))

    def _languages(
        self, encoded: ctranslate2.StorageView, n_windows: int, options: DecodeOptions
    ) -> list[tuple[str, float]]:
        if options.language is not None:
            return [(self._known(options.language), 1.0)] * n_windows
        if not self._whisper.model.is_multilingual:
            return [("en", 1.0)] * n_windows
        asked = tuple(map(self._known, options.languages)) or self.capabilities.languages
        if len(asked) == 1:
            return [(asked[0], 1.0)] * n_windows
        found = []
        for candidates in self._whisper.model.detect_language(encoded):
            named = [(token[2:-2], probability) for token, probability in candidates]
            found.append(next((c for c in named if not asked or c[0] in asked), named[0]))
        return found

    def _known(self, language: str) -> str:
        code = code_of(language)
        if code != "en" and not self._whisper.model.is_multilingual:
            raise InvalidInput(
                f"The model {self.model!r} knows English only", hint="Take one without .en", field="language"
            )
        return code

    def _generate(
        self,
        encoded: ctranslate2.StorageView,
        prompts: list[list[int]],
        durations: list[float],
        tokenizer: Tokenizer,
        options: DecodeOptions,
    ) -> list[tuple[list[Word], DecodeStats]]:
        new_tokens = min(MAX_NEW_TOKENS, 16 + int(TOKENS_PER_SECOND * max(durations)))
        results = self._whisper.model.generate(
            encoded,
            prompts,
            beam_size=options.beam_size if options.temperature == 0 else 1,
            sampling_temperature=options.temperature,
            sampling_topk=0 if options.temperature > 0 else 1,
            no_repeat_ngram_size=options.no_repeat_ngram,
            # CTranslate2 yields min(L / 2, L - prompt + 1) new tokens.
            max_length=min(MAX_CONTEXT, max(2 * new_tokens, len(prompts[0]) + new_tokens - 1)),
            return_scores=True,
            return_no_speech_prob=True,
        )
        hypotheses = [Hypothesis.parse(r.sequences_ids[0], tokenizer) for r in results]
        stats = [
            decode_stats(result, tokenizer.decode(hypothesis.text), options.temperature)
            for result, hypothesis in zip(results, hypotheses, strict=True)
        ]
        if options.word_times:
            words = self._align(encoded, durations, tokenizer, hypotheses)
        else:
            words = [
                list(estimated_words(hypothesis, tokenizer, duration_s, mean_probability(of)))
                for hypothesis, duration_s, of in zip(hypotheses, durations, stats, strict=True)
            ]
        return list(zip(words, stats, strict=True))

    def _align(
        self,
        encoded: ctranslate2.StorageView,
        durations: list[float],
        tokenizer: Tokenizer,
        hypotheses: list[Hypothesis],
    ) -> list[list[Word]]:
        words: list[list[Word]] = [[] for _ in hypotheses]
        rows = [i for i, hypothesis in enumerate(hypotheses) if hypothesis.text]
        if not rows:
            return words
        aligned = self._whisper.find_alignment(
            tokenizer,
            [hypotheses[i].text for i in rows],
            _rows(encoded, rows) if len(rows) < len(hypotheses) else encoded,
            [max(2, samples(durations[i]) // HOP_LENGTH) for i in rows],
        )
        for i, alignment in zip(rows, aligned, strict=True):
            words[i] = list(aligned_words(alignment, hypotheses[i], durations[i]))
        return words


def _rows(encoded: ctranslate2.StorageView, rows: Sequence[int]) -> ctranslate2.StorageView:
    """Some rows of an encoder output of shape (batch, positions, width)."""
    if encoded.device != "cpu":
        encoded = encoded.to_device(ctranslate2.Device.cpu)
    return ctranslate2.StorageView.from_array(np.ascontiguousarray(np.array(encoded)[list(rows)]))
