"""Whisper through CTranslate2: the main engine. faster-whisper gives features, tokenizer and downloads."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import ctranslate2
import msgspec
import numpy as np
from faster_whisper import WhisperModel, available_models
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import get_ctranslate2_storage, merge_punctuations

from callreel.audio.pcm import SAMPLE_RATE, samples, seconds
from callreel.engines.base import Capabilities, Decoded, DecodeOptions, EngineSpec, Window, as_float
from callreel.errors import InvalidInput, ModelMissing
from callreel.text import DecodeStats, Word

HOP_LENGTH = 160  # samples a mel frame
SAMPLES_PER_STEP = 320  # samples an encoder position: the encoder halves the mel frames
MAX_WINDOW_S = 30.0  # positions of the encoder: no weights take more
MAX_NEW_TOKENS = 224  # half of Whisper's text context, as in the original
MAX_CONTEXT = 448
PROMPT_LENGTHS = (0, 4, 8, 16, 32, 64, 128, 223)
TOKENS_PER_SECOND = 12  # more than anybody says; what is beyond it is a loop, and every looped token costs time
RELEASED_MIN_WINDOW_S = 10.0  # released weights were trained on 30 s; `docs/why.md` has the measure
NEEDED_FILES = ("model.bin", "tokenizer.json")  # without the second, faster-whisper would ask the hub for another's
PREPENDED, APPENDED = "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、"


def load(spec: EngineSpec) -> WhisperEngine:
    """Load `spec.model`: a size ("small"), a hub repository id, or a local folder. Raises ModelMissing."""
    folder = find_model(spec.model, Path(spec.models_folder), download=spec.download)
    missing = [name for name in NEEDED_FILES if not (folder / name).is_file()]
    if missing:
        raise ModelMissing(
            f"There is no whole Whisper model in {folder}: it lacks {' and '.join(missing)}",
            hint="Give a folder that CTranslate2's converter wrote: model.bin, config.json, tokenizer.json, vocabulary",
        )
    card = ModelCard.read(folder)
    try:
        model = WhisperModel(str(folder), device="auto", cpu_threads=1, num_workers=spec.threads, compute_type="auto")
    except Exception as error:  # the tokenizers library raises the bare class
        raise ModelMissing(f"The model in {folder} cannot be loaded: {error}") from error
    return WhisperEngine(model, name=spec.model, card=card, min_window_s=spec.min_window_s)


def find_model(model: str, models_folder: Path, *, download: bool) -> Path:
    """The folder of a model on this machine. Raises ModelMissing if it is not here and may or can not be fetched."""
    from faster_whisper.utils import download_model

    if model and Path(model).is_dir():
        return Path(model)
    if model not in available_models() and "/" not in model:
        raise ModelMissing(
            f"There is no Whisper model called {model!r}",
            hint=f"Give a folder, a hub repository id, or one of: {', '.join(available_models())}",
        )
    try:
        return Path(download_model(model, cache_dir=str(models_folder), local_files_only=not download))
    except Exception as error:  # the hub client raises a family of its own, requests' and OSError
        fetching = f"fetching it said: {error}" if download else "or let it be fetched: CALLREEL_DOWNLOAD=true"
        raise ModelMissing(
            f"The Whisper model {model!r} is not on this machine",
            hint=f"Put it under {models_folder}, give its folder, {fetching}",
        ) from error


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


@dataclass(frozen=True, slots=True)
class _Hypothesis:
    """The tokens of one window, text and timestamps apart."""

    text: list[int] = field(default_factory=list)
    spans: list[tuple[int, int, float, float]] = field(default_factory=list)  # text[i:j] lies between two times, s

    @classmethod
    def parse(cls, tokens: Sequence[int], tokenizer: Tokenizer) -> _Hypothesis:
        hypothesis = cls()
        first, opened = 0, None
        for token in tokens:
            if token >= tokenizer.timestamp_begin:
                at = (token - tokenizer.timestamp_begin) * 0.02
                if opened is not None and len(hypothesis.text) > first:
                    hypothesis.spans.append((first, len(hypothesis.text), opened, at))
                opened, first = at, len(hypothesis.text)
            elif token < tokenizer.eot:
                hypothesis.text.append(token)
        return hypothesis


class WhisperEngine:
    """Greedy or beam decodes of batches. Loops over temperatures and context live in `offline/`, not here."""

    name = "whisper"

    def __init__(self, model: WhisperModel, *, name: str, card: ModelCard, min_window_s: float | None = None) -> None:
        self.model = Path(name).resolve().name
        self._whisper = model
        floor = card.min_window_s if min_window_s is None else min_window_s
        self.capabilities = Capabilities(
            batch=4 if model.model.device == "cpu" else 16,
            word_times=True,
            translate=model.model.is_multilingual,
            min_window_s=min(floor, MAX_WINDOW_S),
            max_window_s=card.max_window_s,
            languages=card.languages or (() if model.model.is_multilingual else ("en",)),
        )
        self._detectable = frozenset(self.capabilities.languages)

    def decode(self, windows: Sequence[Window], options: DecodeOptions) -> list[Decoded]:
        """As `Engine.decode`. Raises InvalidInput for a window over 30 s, and a language or task Whisper has not."""
        if not windows:
            return []
        longest_s = seconds(max(len(window.pcm) for window in windows))
        if longest_s > MAX_WINDOW_S:
            raise InvalidInput(f"Whisper takes windows of at most {MAX_WINDOW_S:.0f} s, not of {longest_s:.2f} s")
        encoded = self._encode(windows)
        languages = self._languages(encoded, len(windows), options)
        tokenizers = {language: self._tokenizer(language, options) for language in {found for found, _ in languages}}
        prompts = [
            _prompt(tokenizers[language], window.prompt, options.hotwords)
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
        return self._whisper.model.encode(get_ctranslate2_storage(features))

    def _languages(
        self, encoded: ctranslate2.StorageView, n_windows: int, options: DecodeOptions
    ) -> list[tuple[str, float]]:
        if not self._whisper.model.is_multilingual:
            return [("en", 1.0)] * n_windows
        if options.language is not None:
            return [(options.language, 1.0)] * n_windows
        found = []
        for candidates in self._whisper.model.detect_language(encoded):
            named = [(token[2:-2], probability) for token, probability in candidates]
            found.append(next((c for c in named if not self._detectable or c[0] in self._detectable), named[0]))
        return found

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
            # CTranslate2 yields min(L / 2, L - prompt + 1) new tokens.
            max_length=min(MAX_CONTEXT, max(2 * new_tokens, len(prompts[0]) + new_tokens - 1)),
            return_scores=True,
            return_no_speech_prob=True,
        )
        hypotheses = [_Hypothesis.parse(r.sequences_ids[0], tokenizer) for r in results]
        words = self._align(encoded, durations, tokenizer, hypotheses)
        return [
            (words[i], _stats(result, tokenizer.decode(hypotheses[i].text), options.temperature))
            for i, result in enumerate(results)
        ]

    def _align(
        self,
        encoded: ctranslate2.StorageView,
        durations: list[float],
        tokenizer: Tokenizer,
        hypotheses: list[_Hypothesis],
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
            merge_punctuations(alignment, PREPENDED, APPENDED)
            words[i] = list(_timed(alignment, hypotheses[i].spans, durations[i]))
        return words


def _prompt(tokenizer: Tokenizer, context: str, hotwords: str) -> list[int]:
    """Start tokens behind hotwords and the end of the text that came before.

    That text is cut so that all has one of a few lengths, and rows share a batch. Hotwords are the same in all rows.
    """
    hot: list[int] = tokenizer.encode(" " + hotwords.strip()) if hotwords.strip() else []
    before: list[int] = tokenizer.encode(" " + context.strip()) if context.strip() else []
    hot = hot[: PROMPT_LENGTHS[-1] // 2 if before else PROMPT_LENGTHS[-1]]
    length = max(n for n in PROMPT_LENGTHS if n <= len(hot) + len(before))
    kept = max(0, length - len(hot))
    prefix = [*hot, *before[len(before) - kept :]]
    return [*([tokenizer.sot_prev, *prefix] if prefix else []), *tokenizer.sot_sequence]


def _rows(encoded: ctranslate2.StorageView, rows: Sequence[int]) -> ctranslate2.StorageView:
    """Some rows of an encoder output of shape (batch, positions, width)."""
    if encoded.device != "cpu":
        encoded = encoded.to_device(ctranslate2.Device.cpu)
    return ctranslate2.StorageView.from_array(np.ascontiguousarray(np.array(encoded)[list(rows)]))


def _timed(
    alignment: list[dict[str, Any]], spans: list[tuple[int, int, float, float]], duration_s: float
) -> Iterator[Word]:
    """Words with times that never run backwards, never leave their timestamp pair, never leave the window.

    Cross-attention is vague about where the first word after a pause starts; the timestamp tokens are not.
    """
    n_tokens, at = 0, 0.0
    for item in alignment:
        first, n_tokens = n_tokens, n_tokens + len(item["tokens"])
        if not item["word"].strip():
            continue
        low, high = next(((a, b) for i, j, a, b in spans if i <= first < j), (0.0, duration_s))
        start = min(max(float(item["start"]), low, at), duration_s)
        end = min(max(float(item["end"]), start), max(high, start), duration_s)
        at = end
        yield Word(item["word"], round(start, 3), round(end, 3), round(float(item["probability"]), 4))


def _stats(result: ctranslate2.models.WhisperGenerationResult, text: str, temperature: float) -> DecodeStats:
    n_tokens = len(result.sequences_ids[0])
    data = text.encode()
    return DecodeStats(
        tokens=n_tokens,
        # CTranslate2 divides by the tokens without the end mark, Whisper's thresholds count it.
        avg_logprob=round(result.scores[0] * n_tokens / (n_tokens + 1), 4),
        no_speech_prob=round(result.no_speech_prob, 4),
        compression_ratio=round(len(data) / len(zlib.compress(data)), 3) if data else None,
        temperature=temperature,
    )
