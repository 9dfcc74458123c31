from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callreel.errors import InvalidInput
from callreel.text import Segment, Word
from callreel.transcripts.formats import FormatOptions
from callreel.transcripts.formats.base import in_order, plain
from callreel.transcripts.formats.cues import Cue, cues_of
from callreel.transcripts.formats.words import width
from tests.transcripts.formats.samples import CALL, said

DEFAULT = FormatOptions()


def shown(*segments: Segment, options: FormatOptions = DEFAULT) -> list[Cue]:
    return cues_of(CALL, in_order(segments), options)


def texts(*segments: Segment, options: FormatOptions = DEFAULT) -> list[str]:
    return [cue.text for cue in shown(*segments, options=options)]


def times(*segments: Segment, options: FormatOptions = DEFAULT) -> list[tuple[int, int]]:
    return [(cue.start_ms, cue.end_ms) for cue in shown(*segments, options=options)]


def test_what_fits_is_one_cue_as_long_as_it_is_said() -> None:
    assert times(said("we moved the launch to May", 10.0)) == [(10_000, 11_800)]


def test_sentences_are_kept_together() -> None:
    heard = "We could move the launch to October because of that. What do you think about it all?"
    assert texts(said(heard)) == [
        "We could move the launch to October because of that.",
        "What do you think about it all?",
    ]


def test_a_long_sentence_is_cut_at_its_clauses() -> None:
    heard = (
        "I think that this is right, although marketing will certainly complain about it, "
        "because nobody in that room ever wanted to wait"
    )
    assert texts(said(heard, word_s=0.4)) == [
        "I think that this is right,",
        "although marketing will certainly complain about it,",
        "because nobody in that room ever wanted to wait",
    ]


def test_where_no_mark_helps_a_pause_is_the_place_to_cut() -> None:
    before = said("a few words that lead up to the pause and", 0.0)
    after = said("others that follow when the breath is drawn in again")
    late = tuple(w.shifted(before.end + 0.6) for w in after.words)
    joined = replace(
        before,
        text=f"{before.text} {after.text}",
        words=(*before.words, replace(late[0], word=f" {late[0].word}"), *late[1:]),
        end=late[-1].end,
    )
    assert texts(joined) == [before.text, after.text]


def test_nothing_is_held_over_a_long_silence() -> None:
    heard = replace(said("so well"), words=(Word("so", 0, 0.3), Word(" well", 5, 5.3)), end=5.3)
    assert times(heard) == [(0, 1000), (5000, 6000)]


def test_short_answers_are_shown_long_enough_to_read() -> None:
    assert times(said("Yes.", 3.0)) == [(3000, 4000)]
    fast = said("entrepreneurship internationalization notwithstanding", word_s=0.2)
    assert times(fast) == [(0, 2650)]  # 53 columns at 20 a second


def test_nobody_is_stretched_into_what_the_next_one_says() -> None:
    assert times(said("Yes.", 3.0), said("No.", 3.4, seq=1, speaker="B")) == [(3000, 3400), (3400, 4400)]


def test_short_segments_of_one_speaker_share_a_cue() -> None:
    assert texts(said("Yes."), said("Right.", 0.4, seq=1)) == ["Yes. Right."]
    assert texts(said("Yes."), said("Right.", 0.4, seq=1, speaker="B")) == ["Yes.", "Right."]


def test_a_word_longer_than_a_cue_may_be_ends_in_time() -> None:
    assert times(said("Ommmm", word_s=20.0)) == [(0, 7000)]


def test_lines_are_balanced_and_end_where_clauses_do() -> None:
    cue = shown(said("I think that is right, although marketing will complain about it."))[0]
    assert cue.lines(DEFAULT) == ["I think that is right,", "although marketing will complain about it."]
    cue = shown(said("one two three four five six seven eight nine ten"))[0]
    assert cue.lines(DEFAULT) == ["one two three four five", "six seven eight nine ten"]


def test_a_word_wider_than_a_line_has_one_to_itself() -> None:
    link = "https://example.com/" + "a" * 60
    (cue,) = shown(said(f"see {link}", word_s=1.0))
    assert cue.lines(DEFAULT) == ["see", link]


def test_chinese_breaks_between_characters_and_never_before_a_full_stop() -> None:
    heard = replace(
        said("x", word_s=6.0), text="我们明天早上九点在会议室见面，请你带上你的电脑和所有的文件。", words=()
    )
    (cue,) = shown(heard)
    first, second = cue.lines(DEFAULT)
    assert (first, second) == ("我们明天早上九点在会议室见面，", "请你带上你的电脑和所有的文件。")
    assert texts(replace(heard, text="好。"), replace(heard, text="走吧。", seq=1, start=6.0, end=7.0)) == [
        "好。走吧。"
    ]


def test_options_change_the_cues() -> None:
    heard = said("one two three four five six seven eight nine ten")
    narrow = FormatOptions(max_line_chars=10, max_lines=1)
    assert all(len(cue.lines(narrow)) == 1 and len(cue.text) <= 10 for cue in shown(heard, options=narrow))
    assert [end - start for start, end in times(heard, options=FormatOptions(max_cue_s=1.5))] == [1500, 1500]
    assert shown(said("hi"), options=FormatOptions(speakers=False))[0].speaker is None


@pytest.mark.parametrize(
    "wrong", [{"max_line_chars": 0}, {"max_lines": 0}, {"min_cue_s": 8}, {"min_cue_s": -1}, {"max_cue_s": 0}]
)
def test_options_that_no_cue_could_satisfy_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(InvalidInput):
        FormatOptions(**wrong)


WORDS = st.sampled_from(
    [
        "a",
        "of",
        "the",
        "quick",
        "brown,",
        "fox.",
        "internationalization",
        "世界",
        "，",
        "。",
        "don",
        "'t",
        "x" * 50,
        "e\u0301",
    ]
)
OPTIONS = st.builds(
    FormatOptions,
    max_line_chars=st.integers(1, 60),
    max_lines=st.integers(1, 3),
    min_cue_s=st.sampled_from([0, 0.5, 1]),
    max_cue_s=st.sampled_from([1, 3, 7]),
)


@st.composite
def transcripts(draw: st.DrawFn) -> list[Segment]:
    """Segments of two voices that pause, interrupt and overlap each other and themselves, some with word times."""
    segments = []
    at = 0.0
    for seq in range(draw(st.integers(0, 6))):
        at = max(0.0, at + draw(st.floats(-3, 4)))
        start, words = at, []
        for _ in range(draw(st.integers(1, 25))):
            at += draw(st.sampled_from([0, 0, 0.1, 0.7, 2.5]))
            end = at + draw(st.sampled_from([0, 0.05, 0.3, 0.9, 9]))
            words.append(Word(draw(st.sampled_from([" ", " ", ""])) + draw(WORDS), at, end))
            at = end
        text = "".join(w.word for w in words).strip()
        kept = tuple(words) if draw(st.booleans()) else ()
        segments.append(Segment("caller", seq, start, at, text, kept, speaker=draw(st.sampled_from("AB"))))
    return segments


@given(transcripts(), OPTIONS, st.booleans())
def test_what_holds_of_all_cues(segments: list[Segment], options: FormatOptions, labels: bool) -> None:
    ordered = in_order(segments)
    cues = cues_of(CALL, ordered, options, labels=labels)
    shortest, longest = round(options.min_cue_s * 1000), round(options.max_cue_s * 1000)

    for speaker in "AB":
        voice = [cue for cue in cues if cue.speaker == speaker]
        said_words = "".join(plain(s.text) for s in ordered if s.speaker == speaker)
        assert "".join(cue.text for cue in voice).replace(" ", "") == said_words.replace(" ", "")
        assert all(a.end_ms <= b.start_ms for a, b in pairwise(voice))

    starts = [cue.start_ms for cue in cues]
    assert starts == sorted(starts)
    for cue in cues:
        assert 0 < cue.end_ms - cue.start_ms <= longest
        if cue.end_ms - cue.start_ms < shortest:
            assert any(cue.start_ms < start <= cue.end_ms for start in starts)
        lines = cue.lines(options)
        assert len(lines) <= options.max_lines
        assert " ".join(lines).replace(" ", "") == cue.text.replace(" ", "")
        atoms = {atom.text for atom in cue.atoms}
        assert all(width(line) <= options.max_line_chars or line in atoms for line in lines)
