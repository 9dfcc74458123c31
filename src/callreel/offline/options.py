"""What a user may choose for one transcription."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from callreel.audio.pcm import Channels
from callreel.engines.base import Capabilities
from callreel.errors import InvalidInput
from callreel.offline.profiles import PROFILES

TASKS = ("transcribe", "translate")


@dataclass(frozen=True, slots=True)
class TranscribeOptions:
    """`language` None: heard from several places of the recording, among `languages` if any are given.

    `task` translate writes English. `prompt` and `hotwords` steer spelling. `profile` is a name of `PROFILES`.
    `channels` "split" makes each channel a track, and `speakers` names who is on them, in order. Without `word_times`
    segments carry no words. `temperature` (0..1) above 0 samples, which no two runs do alike.
    """

    language: str | None = None
    task: str = "transcribe"
    prompt: str = ""
    hotwords: str = ""
    languages: tuple[str, ...] = ()
    profile: str = "balanced"
    channels: Channels = "mix"
    speakers: tuple[str, ...] = ()
    word_times: bool = True
    temperature: float = 0.0

    def check(self, can: Capabilities) -> None:
        """Raises InvalidInput for what there is not, and for what the engine cannot do."""
        _one_of("task", self.task, TASKS)
        _one_of("profile", self.profile, tuple(PROFILES))
        _one_of("channels", self.channels, get_args(Channels))
        if not 0.0 <= self.temperature <= 1.0:
            raise InvalidInput(f"The temperature lies in 0..1, not at {self.temperature}", field="temperature")
        if len(self.speakers) > 1 and self.channels != "split":
            raise InvalidInput(
                "Only split channels have several speakers", hint="Ask for channels=split", field="speakers"
            )
        if self.task == "translate" and not can.translate:
            raise InvalidInput("This engine does not translate", hint="Take a multilingual Whisper model", field="task")
        for language in (*([self.language] if self.language is not None else []), *self.languages):
            if can.languages and language not in can.languages:
                raise InvalidInput(
                    f"This engine has no language {language!r}",
                    hint=f"It has: {', '.join(can.languages)}",
                    field="language",
                )


def _one_of(field: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InvalidInput(f"There is no {field} {value!r}", hint=f"Known: {', '.join(known)}", field=field)
