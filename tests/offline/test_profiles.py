from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from callreel.engines.base import Capabilities, Decoded, DecodeOptions, Window
from callreel.offline.profiles import PROFILES, is_doubtful, is_invented, is_repetitive
from callreel.text import DecodeStats, Word

SURE = DecodeStats(tokens=3, avg_logprob=-0.2, no_speech_prob=0.01, compression_ratio=1.1)
UNSURE = replace(SURE, avg_logprob=-1.4)
LOOP = replace(SURE, compression_ratio=5.0)
INVENTED = DecodeStats(tokens=3, avg_logprob=-1.3, no_speech_prob=0.9)


@dataclass
class Moody:
    """An engine that gives the stats it is told to, one call after another, and remembers what it was asked."""

    moods: list[list[DecodeStats]]
    asked: list[tuple[int, DecodeOptions]] = field(default_factory=list)
    name = model = "moody"
    capabilities = Capabilities(batch=8)

    def decode(self, windows: Sequence[Window], options: DecodeOptions) -> list[Decoded]:
        self.asked.append((len(windows), options))
        stats = self.moods[len(self.asked) - 1]
        word = f" {len(self.asked)}"
        return [
            Decoded(
                (Word(word, 0.0, 0.5),),
                "en",
                0.7 if options.language is None else 1.0,
                replace(s, temperature=options.temperature),
            )
            for s in stats
        ]


WINDOW = Window(np.zeros(16_000, np.int16))


def said(decoded: Decoded) -> str:
    return decoded.words[0].word.strip()


def test_invented_takes_both_signs() -> None:
    assert is_invented(Decoded(stats=INVENTED))
    assert not is_invented(Decoded(stats=DecodeStats(avg_logprob=-0.3, no_speech_prob=0.9)))  # sure of its words
    assert not is_invented(Decoded(stats=DecodeStats(avg_logprob=-1.3, no_speech_prob=0.1)))  # mumbled, but spoken
    assert not is_invented(Decoded(stats=DecodeStats()))  # an engine that cannot say


def test_doubtful_is_what_fails_the_thresholds_but_is_not_silence() -> None:
    assert is_doubtful(Decoded(stats=UNSURE))
    assert is_doubtful(Decoded(stats=LOOP)) and is_repetitive(Decoded(stats=LOOP))
    assert not is_doubtful(Decoded(stats=INVENTED))
    assert not is_doubtful(Decoded(stats=SURE))
    assert not is_doubtful(Decoded())


def test_fast_is_greedy_and_tries_once() -> None:
    engine = Moody([[SURE, LOOP]])
    PROFILES["fast"].decode(engine, [WINDOW, WINDOW], DecodeOptions())
    assert [(n, o.beam_size, o.no_repeat_ngram) for n, o in engine.asked] == [(2, 1, 0)]


def test_balanced_tries_doubtful_windows_again_alone_and_deterministically() -> None:
    engine = Moody([[SURE, UNSURE, INVENTED, LOOP], [SURE], [SURE]])
    found = PROFILES["balanced"].decode(engine, [WINDOW] * 4, DecodeOptions())
    assert [(n, o.beam_size, o.no_repeat_ngram > 0, o.temperature) for n, o in engine.asked] == [
        (4, 5, False, 0.0),
        (1, 5, True, 0.0),
        (1, 5, True, 0.0),
    ]
    assert [said(d) for d in found] == ["1", "2", "1", "3"]
    # The second try is told the language; the first one's certainty of it stays.
    assert engine.asked[1][1].language == "en"
    assert {d.language_probability for d in found} == {0.7}


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        (UNSURE, replace(UNSURE, avg_logprob=-1.2), "2"),
        (UNSURE, replace(UNSURE, avg_logprob=-1.6), "1"),
        (LOOP, UNSURE, "2"),  # better unsure than a loop
        (UNSURE, LOOP, "1"),
        (LOOP, INVENTED, "2"),  # silence, it says now
    ],
)
def test_of_two_doubtful_tries_the_better_is_kept(first: DecodeStats, second: DecodeStats, kept: str) -> None:
    (found,) = PROFILES["balanced"].decode(Moody([[first], [second]]), [WINDOW], DecodeOptions())
    assert said(found) == kept


def test_accurate_heats_up_until_it_is_sure() -> None:
    engine = Moody([[UNSURE], [UNSURE], [LOOP], [SURE]])
    (found,) = PROFILES["accurate"].decode(engine, [WINDOW], DecodeOptions())
    assert [o.temperature for _, o in engine.asked] == [0.0, 0.2, 0.4, 0.6]
    assert (said(found), found.stats.temperature) == ("4", 0.6)


def test_accurate_ends_with_the_best_of_all() -> None:
    engine = Moody([[replace(UNSURE, avg_logprob=-1.0 - 0.1 * abs(3 - i) - 0.1)] for i in range(6)])
    (found,) = PROFILES["accurate"].decode(engine, [WINDOW], DecodeOptions())
    assert len(engine.asked) == 6
    assert said(found) == "4"


def test_accurate_goes_on_from_the_temperature_asked_for() -> None:
    engine = Moody([[UNSURE]] * 3)
    PROFILES["accurate"].decode(engine, [WINDOW], DecodeOptions(temperature=0.6))
    assert [o.temperature for _, o in engine.asked] == [0.6, 0.8, 1.0]
