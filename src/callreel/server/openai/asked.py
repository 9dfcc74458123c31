"""What clients of OpenAI's audio API send, and what it asks of a transcription."""

from __future__ import annotations

import json
import re
from abc import abstractmethod
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from callreel.errors import InvalidInput
from callreel.offline.options import TranscribeOptions
from callreel.server.services import Services
from callreel.server.wishes import Language, Languages, Temperature, Text, Texts, checked, hotwords

DEFAULT_NAMES = (  # of OpenAI's own models: they mean the server's default one
    "whisper-1",
    "gpt-transcribe",
    "gpt-4o-transcribe",
    "gpt-4o-mini-transcribe",
    "gpt-4o-mini-transcribe-2025-12-15",
    "gpt-4o-transcribe-diarize",
)
MAX_SPEAKERS = 4
DATA_URL = re.compile(r"data:audio/[\w.+-]+(?:;[\w=.+-]+)*;base64,[A-Za-z0-9+/=\s]+", re.ASCII)

Format: TypeAlias = Literal["json", "text", "srt", "verbose_json", "vtt"]
AnyFormat: TypeAlias = Literal["json", "text", "srt", "verbose_json", "vtt", "diarized_json"]
Granularity: TypeAlias = Literal["word", "segment"]


class ServerVad(BaseModel):
    """How OpenAI may be told to find pauses. We cut at pauses anyway, and say that these numbers change nothing."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["server_vad"]
    prefix_padding_ms: Annotated[int, Field(ge=0)] | None = None
    silence_duration_ms: Annotated[int, Field(ge=0)] | None = None
    threshold: Annotated[float, Field(ge=0, le=1)] | None = None


def _parsed(value: Any) -> Any:
    if isinstance(value, str) and value.startswith("{"):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value


class AudioRequest(BaseModel):
    """What both endpoints take, beside the file. `profile`, `engine` and `store` are ours."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str = Field(max_length=200, description="whisper-1 and the like: the server's own; or any model's name")
    prompt: Text = Field("", description="Text that steers spelling and style")
    temperature: Temperature = Field(0.0, description="Above 0 it samples, which no two runs do alike")
    engine: str | None = Field(None, max_length=200, description="Of Callreel: auto, whisper, pocketsphinx, openai")
    profile: Literal["fast", "balanced", "accurate"] | None = Field(None, description="Of Callreel: quality")
    store: bool = Field(False, description="Of Callreel: keep the call and its transcript")

    @property
    def model_asked(self) -> str | None:
        """None for the server's default."""
        return None if self.model in DEFAULT_NAMES else self.model

    @property
    def needs_words(self) -> bool:
        """Finding the times of words costs as much again as half the transcription."""
        return self.store or self.format not in ("json", "text")

    @property
    @abstractmethod
    def format(self) -> AnyFormat: ...

    @abstractmethod
    def options(self, house: Services) -> TranscribeOptions:
        """Raises InvalidInput."""

    def warnings(self) -> list[str]:
        """What was asked for and changes nothing here."""
        return []


class TranslationRequest(AudioRequest):
    """What /v1/audio/translations takes, beside the file."""

    response_format: Format = "json"

    @property
    def format(self) -> AnyFormat:
        return self.response_format

    def options(self, house: Services) -> TranscribeOptions:
        return checked(
            TranscribeOptions(
                task="translate",
                prompt=self.prompt,
                temperature=self.temperature,
                profile=self.profile or house.settings.final.profile,
                word_times=self.needs_words,
            )
        )


class TranscriptionRequest(AudioRequest):
    """What /v1/audio/transcriptions takes, beside the file."""

    response_format: AnyFormat = "json"
    language: Language | None = Field(None, description="Code or English name; heard from the recording if not given")
    languages: Languages = Field([], max_length=100, description="Those it can be, if it is to be heard")
    keywords: Texts = Field([], description="Words to expect")
    timestamp_granularities: list[Granularity] = Field([], description="With verbose_json; segment if not given")
    include: list[Literal["logprobs"]] = Field([], description="With json: how sure each word is")
    chunking_strategy: Annotated[Literal["auto"] | ServerVad | None, BeforeValidator(_parsed)] = None
    known_speaker_names: Texts = Field([], description=f"At most {MAX_SPEAKERS}, each with a reference")
    known_speaker_references: list[str] = Field([], description="Their voices, 2 to 10 s each, as data URLs")
    stream: bool = Field(False, description="Server-sent events, with text as it is certain")
    channels: Literal["mix", "split"] = Field("mix", description="Of Callreel: split makes each channel a speaker")

    @property
    def format(self) -> AnyFormat:
        return self.response_format

    @property
    def needs_words(self) -> bool:
        return super().needs_words or bool(self.include)

    @property
    def granularities(self) -> tuple[str, ...]:
        return tuple(self.timestamp_granularities) or ("segment",)

    def options(self, house: Services) -> TranscribeOptions:
        self.require_sense()
        return checked(
            TranscribeOptions(
                language=self.language,
                languages=tuple(self.languages),
                prompt=self.prompt,
                hotwords=hotwords(self.keywords),
                temperature=self.temperature,
                profile=self.profile or house.settings.final.profile,
                channels=self.channels,
                word_times=self.needs_words,
            )
        )

    def require_sense(self) -> None:
        """Raises InvalidInput, which names the field, for what does not go together."""
        if self.timestamp_granularities and self.response_format != "verbose_json":
            raise _no("timestamp_granularities", "timestamp_granularities need response_format=verbose_json")
        if self.include and self.response_format != "json":
            raise _no("include", "include[]=logprobs needs response_format=json")
        if self.stream and self.response_format not in ("json", "text", "diarized_json"):
            raise _no("stream", f"{self.response_format} cannot be streamed; take json, text or diarized_json")
        if self.language is not None and self.languages and self.language not in self.languages:
            raise _no("languages", f"languages do not hold the language {self.language}")
        names, references = self.known_speaker_names, self.known_speaker_references
        if len(names) > MAX_SPEAKERS or len(names) != len(references):
            raise _no(
                "known_speaker_names", f"At most {MAX_SPEAKERS} speakers are known, each by a name and a reference"
            )
        if not all(DATA_URL.fullmatch(reference) for reference in references):
            raise _no("known_speaker_references", "A reference is a data URL: data:audio/wav;base64,...")

    def warnings(self) -> list[str]:
        found = []
        if isinstance(self.chunking_strategy, ServerVad):
            found.append("The numbers of chunking_strategy are not used: recordings are always cut at pauses.")
        if self.response_format == "diarized_json" and self.channels == "mix":
            found.append(
                "Voices are not told apart here, so all is one speaker; channels=split makes each channel one."
            )
        if self.known_speaker_names:
            found.append("known_speaker_names are not used: voices are not told apart here.")
        return found


def _no(field: str, said: str) -> InvalidInput:
    return InvalidInput(said, field=field)
