"""How much work a transcription is worth: what is tried, and what is tried again. Never a side effect of batching."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from callreel.engines.base import Decoded, DecodeOptions, Engine, Window

# Whisper's own thresholds (Radford et al. 2022, section 4.5).
NO_SPEECH_PROB = 0.6
MIN_AVG_LOGPROB = -1.0
MAX_COMPRESSION_RATIO = 2.4
HOT = 0.5  # text sampled at a higher temperature is no context for what follows


@dataclass(frozen=True, slots=True)
class Profile:
    """`sequential`: one window after another, each with the text before it as its prompt; else in batches.

    A doubtful window is decoded again, alone: without repeating `no_repeat_ngram` tokens (0: not tried), then at each
    of `temperatures`, until one is not doubtful.
    """

    beam_size: int
    sequential: bool = False
    no_repeat_ngram: int = 0
    temperatures: tuple[float, ...] = ()

    def decode(self, engine: Engine, windows: Sequence[Window], options: DecodeOptions) -> list[Decoded]:
        """One Decoded a window; doubtful ones are tried again."""
        options = replace(options, beam_size=self.beam_size)
        first = engine.decode(windows, options)
        return [
            self._again(engine, window, options, decoded) if is_doubtful(decoded) else decoded
            for window, decoded in zip(windows, first, strict=True)
        ]

    def _again(self, engine: Engine, window: Window, options: DecodeOptions, first: Decoded) -> Decoded:
        tried = [first]
        for other in self._others(replace(options, language=options.language or first.language)):
            (decoded,) = engine.decode([window], other)
            # The window was heard the first time: which language it is in was settled there, with its certainty.
            tried.append(replace(decoded, language=first.language, language_probability=first.language_probability))
            if not is_doubtful(tried[-1]):
                return tried[-1]
        return max(tried, key=lambda decoded: (not is_repetitive(decoded), decoded.stats.avg_logprob or 0.0))

    def _others(self, options: DecodeOptions) -> Iterator[DecodeOptions]:
        if self.no_repeat_ngram:
            yield replace(options, no_repeat_ngram=self.no_repeat_ngram)
        for temperature in self.temperatures:
            if temperature > options.temperature:
                yield replace(options, temperature=temperature)


PROFILES = {
    "fast": Profile(beam_size=1),
    "balanced": Profile(beam_size=5, no_repeat_ngram=3),
    "accurate": Profile(beam_size=5, sequential=True, temperatures=(0.2, 0.4, 0.6, 0.8, 1.0)),
}


def is_invented(decoded: Decoded) -> bool:
    """True for text that Whisper made up over silence or noise: it says itself that nobody speaks, and is not sure."""
    no_speech = decoded.stats.no_speech_prob
    return no_speech is not None and no_speech > NO_SPEECH_PROB and _is_unsure(decoded)


def is_repetitive(decoded: Decoded) -> bool:
    ratio = decoded.stats.compression_ratio
    return ratio is not None and ratio > MAX_COMPRESSION_RATIO


def is_doubtful(decoded: Decoded) -> bool:
    """True for a decode that fails Whisper's thresholds, but for silence, which is what it looks like."""
    return not is_invented(decoded) and (is_repetitive(decoded) or _is_unsure(decoded))


def _is_unsure(decoded: Decoded) -> bool:
    logprob = decoded.stats.avg_logprob
    return logprob is not None and logprob < MIN_AVG_LOGPROB
