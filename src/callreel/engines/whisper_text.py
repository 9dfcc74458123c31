"""Whisper's tokens: the prompt that goes in, the words with times that come out. No model is needed here."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import ctranslate2
from faster_whisper.tokenizer import Tokenizer
from faster_whisper.transcribe import merge_punctuations

from callreel.engines.spread import spread
from callreel.text import DecodeStats, Word

PROMPT_LENGTHS = (0, 4, 8, 16, 32, 64, 128, 223)
TIMESTAMP_S = 0.02
PREPENDED, APPENDED = "\"'“¿([{-", "\"'.。,，!！?？:：”)]}、"


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """The tokens of one window, text and timestamps apart."""

    text: list[int] = field(default_factory=list)
    spans: list[tuple[int, int, float, float]] = field(default_factory=list)  # text[i:j] lies between two times, s

    @classmethod
    def parse(cls, tokens: Sequence[int], tokenizer: Tokenizer) -> Hypothesis:
        hypothesis = cls()
        first, opened = 0, None
        for token in tokens:
            if token >= tokenizer.timestamp_begin:
                at = (token - tokenizer.timestamp_begin) * TIMESTAMP_S
                if opened is not None and len(hypothesis.text) > first:
                    hypothesis.spans.append((first, len(hypothesis.text), opened, at))
                opened, first = at, len(hypothesis.text)
            elif token < tokenizer.eot:
                hypothesis.text.append(token)
        return hypothesis

    def stretches(self, duration_s: float) -> Iterator[tuple[int, int, float, float]]:
        """All of the text, in order: the spans, and between them what has no times of its own and gets the gap."""
        at, at_s = 0, 0.0
        for i, j, start, end in [*self.spans, (len(self.text), len(self.text), duration_s, duration_s)]:
            start, end = (min(max(t, at_s), duration_s) for t in (start, end))
            if i > at:
                yield at, i, at_s, start
            if j > i:
                yield i, j, start, max(start, end)
            at, at_s = j, max(start, end)


def prompt_tokens(tokenizer: Tokenizer, context: str, hotwords: str) -> list[int]:
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


def aligned_words(alignment: list[dict[str, Any]], hypothesis: Hypothesis, duration_s: float) -> Iterator[Word]:
    """Words with times that never run backwards, never leave their timestamp pair, never leave the window.

    Cross-attention is vague about where the first word after a pause starts; the timestamp tokens are not.
    """
    merge_punctuations(alignment, PREPENDED, APPENDED)
    n_tokens, at = 0, 0.0
    for item in alignment:
        first, n_tokens = n_tokens, n_tokens + len(item["tokens"])
        if not item["word"].strip():
            continue
        low, high = next(((a, b) for i, j, a, b in hypothesis.spans if i <= first < j), (0.0, duration_s))
        start = min(max(float(item["start"]), low, at), duration_s)
        end = min(max(float(item["end"]), start), max(high, start), duration_s)
        at = end
        yield Word(item["word"], round(start, 3), round(end, 3), round(float(item["probability"]), 4))


def estimated_words(
    hypothesis: Hypothesis, tokenizer: Tokenizer, duration_s: float, probability: float
) -> Iterator[Word]:
    """The same words without an alignment: their times are spread over their timestamp pair, by length."""
    words, tokens = tokenizer.split_to_word_tokens([*hypothesis.text, tokenizer.eot])
    pieces = [{"word": word, "tokens": ids} for word, ids in zip(words[:-1], tokens[:-1], strict=True)]
    merge_punctuations(pieces, PREPENDED, APPENDED)
    starts, n_tokens = [], 0
    for piece in pieces:
        starts.append(n_tokens)
        n_tokens += len(piece["tokens"])
    for i, j, start, end in hypothesis.stretches(duration_s):
        here = [str(piece["word"]) for piece, at in zip(pieces, starts, strict=True) if i <= at < j]
        yield from spread(here, start, end, probability)


def decode_stats(result: ctranslate2.models.WhisperGenerationResult, text: str, temperature: float) -> DecodeStats:
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


def mean_probability(stats: DecodeStats) -> float:
    """The mean probability of a token, for words that have none of their own."""
    return round(math.exp(min(0.0, stats.avg_logprob or 0.0)), 4)
