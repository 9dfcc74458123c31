"""All that can be set. `load` reads it: flags over CALLREEL_* variables over callreel.toml over a preset over defaults.

A setting is written `section.name`: `[section] name = ...` in callreel.toml, CALLREEL_SECTION_NAME in the environment.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, TypeAlias

import pydantic
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic.fields import FieldInfo

from callreel.errors import InvalidInput

FILE = "callreel.toml"
PREFIX = "CALLREEL_"
OWN_VARIABLES = ("CALLREEL_CONFIG",)  # where callreel.toml lies; no setting
TEST_VARIABLES = "CALLREEL_TEST_"  # of the test suite
HINT = "docs/reference/settings.md lists every setting; `callreel config` shows those in force"

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30}


def _bytes(value: object) -> object:
    """ "500 MB" as a number of bytes."""
    if isinstance(value, str) and (found := re.fullmatch(r"\s*([\d.]+)\s*([A-Za-z]*)\s*", value)):
        number, unit = found.groups()
        if unit.upper() in UNITS:
            return int(float(number) * UNITS[unit.upper()])
    return value


def _list(value: object) -> object:
    """ "a, b" or a JSON list as a list."""
    if not isinstance(value, str):
        return value
    return json.loads(value) if value.lstrip().startswith("[") else [v.strip() for v in value.split(",") if v.strip()]


def _networks(value: tuple[str, ...]) -> tuple[str, ...]:
    for network in value:
        ip_network(network, strict=False)  # a ValueError names what is wrong
    return value


def _table(value: object) -> object:
    """ "transcribe=3, export=1" or a JSON object as a table of numbers."""
    if not isinstance(value, str):
        return value
    try:
        if value.lstrip().startswith("{"):
            return {name: int(str(number)) for name, number in json.loads(value).items()}
        pairs = (part.partition("=") for part in value.split(",") if part.strip())
        return {name.strip(): int(number) for name, _, number in pairs}
    except (ValueError, TypeError) as error:
        raise ValueError('write transcribe=3,export=1 or {"transcribe": 3, "export": 1}') from error


Bytes: TypeAlias = Annotated[int, BeforeValidator(_bytes)]
Names: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(_list)]
Networks: TypeAlias = Annotated[Names, AfterValidator(_networks)]
Counts: TypeAlias = Annotated[dict[str, Annotated[int, Field(ge=0)]], BeforeValidator(_table)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Live(Section):
    """Streams: words while people speak."""

    port: int = Field(9090, ge=0, le=65535, description="Port of WhisperLive's protocol. 0: any free one.")
    engine: str | None = Field(None, description="Speech engine of live streams; `engine` if unset.")
    model: str | None = Field(None, description="Model of live streams; `model` if unset.")
    endpoint_silence_s: float = Field(0.35, ge=0.1, le=5, description="Silence that ends an utterance, seconds.")
    hop_s: float = Field(0.5, ge=0.1, le=10, description="New audio between two partial decodes of a stream, seconds.")
    stall_s: float = Field(
        1.5, ge=0.5, le=60, description="Without new audio for so long, what was said is completed, seconds."
    )
    fsync: Literal["never", "group"] = Field(
        "never", description="When live audio is forced to the disk: never, or every group."
    )
    buffer_s: float = Field(
        30.0,
        ge=1,
        description="Audio of a stream that may wait for the disk, seconds; then its socket is not read any more.",
    )


class Final(Section):
    """Files and recordings: the transcript of the whole audio."""

    engine: str | None = Field(None, description="Speech engine of files; `engine` if unset.")
    model: str | None = Field(None, description="Model of files; `model` if unset.")
    profile: Literal["fast", "balanced", "accurate"] = Field(
        "balanced", description="Quality of a transcription that asks for none."
    )


class Engines(Section):
    """The processes that hold models."""

    threads: int = Field(
        os.cpu_count() or 1, ge=1, description="Decodes that run at once in each engine process, one core each."
    )
    min_window_s: float | None = Field(
        None, ge=0, le=30, description="Shorter windows are padded with silence up to this; the model's own if unset."
    )


class Models(Section):
    """Where models come from and how long they stay in memory."""

    dir: Path | None = Field(None, description="Where downloaded models are kept; models/ in the data folder if unset.")
    download: bool = Field(True, description="May a missing model be fetched from the hub?")
    hub_url: str | None = Field(None, description="A mirror of the model hub.")
    proxy: str | None = Field(None, description="Proxy for model downloads.")
    unload: Literal["never", "idle", "after_use"] = Field(
        "idle", description="When a model of files leaves memory: never, after `models.idle_s`, or after each job."
    )
    idle_s: float = Field(600.0, ge=0, description="Seconds without work after which a model is unloaded.")
    memory: Bytes = Field(
        0, ge=0, description="Memory that models of files may take together, bytes. 0: half of the machine's."
    )
    max_loaded: int | None = Field(None, ge=1, description="Models of files in memory at once, if bounded by number.")


class Batch(Section):
    """How many windows of one job an engine decodes in one call; chosen within these once a job."""

    min: int = Field(1, ge=1, le=64, description="Windows a call at least, where a file has as many.")
    max: int = Field(8, ge=1, le=64, description="Windows a call at most.")


class Gpu(Section):
    """Graphics cards."""

    max_concurrent: int = Field(2, ge=1, description="Decodes at once on a GPU.")
    memory_share: float = Field(0.8, gt=0, le=1, description="Share of a GPU's memory that models may take.")
    park_after_s: float = Field(
        60.0, ge=0, description="An idle model leaves the GPU for RAM after so long, seconds. 0: it stays."
    )


class Jobs(Section):
    """Durable work."""

    max_concurrent: Counts = Field(
        {"transcribe": 3, "export": 3},
        description="Jobs of each kind at once; without it, never more than the machine has cores.",
    )
    queue_limit: int = Field(
        50, ge=1, description="Queued jobs of one kind; one more is refused with a time to come back."
    )
    max_attempts: int = Field(3, ge=1, description="Tries of a job whose failures may pass.")
    ageing_s: float = Field(
        600.0, ge=0, description="A normal job overtakes high ones that came so much later, a low one after 3 times it."
    )
    memory: Bytes = Field(8 << 30, ge=1 << 30, description="Address space of a job's process, bytes.")
    lease_s: float = Field(30.0, ge=1, description="A job whose worker is silent for so long is queued again.")
    cache_ttl_s: float = Field(
        3600.0, ge=0, description="The same file with the same options is answered from the last result for so long."
    )
    max_audio_s: float = Field(24 * 3600.0, gt=0, description="Audio of one file at most, seconds.")


class Sources(Section):
    """Files and streams that Callreel fetches by URL."""

    allow_networks: Networks = Field((), description="Private networks that source URLs may point into, as CIDRs.")
    timeout_s: float = Field(600.0, gt=0, description="Seconds that fetching a source may take.")


class Retention(Section):
    """What is deleted by itself, in days; 0: never."""

    calls_days: float = Field(0, ge=0, description="Calls, with everything under them.")
    sources_days: float = Field(0, ge=0, description="Uploaded files; their transcripts stay.")
    jobs_days: float = Field(30, ge=0, description="Finished jobs and their logs, and what webhooks were sent.")


class Cleanup(Section):
    """The cleaner."""

    interval: float = Field(300.0, ge=1, description="Seconds between two rounds.")


class Log(Section):
    """What the server says of itself."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="The least that is logged.")
    json_: bool = Field(False, alias="json", description="One JSON object a line.")
    performance: bool = Field(False, description="A line a job: seconds, memory, CPU.")


class OpenAI(Section):
    """The engine `openai`: any server that speaks OpenAI's audio API."""

    url: str | None = Field(None, description="Base URL, such as http://gpu-box:8000/v1.")
    key: str | None = Field(None, description="API key, if it wants one.", json_schema_extra={"secret": True})


class Settings(Section):
    """Each field's description is its documentation."""

    data_dir: Path = Field(Path("data"), description="The data folder: database, recordings, logs of live audio.")
    host: str = Field("127.0.0.1", description="Address to listen on. Beyond loopback every request needs an API key.")
    port: int = Field(8125, ge=0, le=65535, description="Port of the HTTP API. 0: any free one.")
    engine: str = Field(
        "auto", description="Speech engine: auto, whisper, pocketsphinx, openai, or package.module:function."
    )
    model: str = Field("base", description="Model: a name of `callreel models`, a hub repository id, or a folder.")
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where models compute.")
    compute_type: str = Field(
        "auto", description="How models compute, in CTranslate2's words; auto is int8 on a CPU, float16 on a GPU."
    )
    preset: Literal["none", "low-latency", "throughput", "balanced"] = Field(
        "none", description="Models, compute type, batch and profile in one word; what is set besides goes over it."
    )
    max_file_size: Bytes = Field(500 * 10**6, ge=1, description="Larger uploads are refused, bytes.")
    url: str | None = Field(
        None, description="The server that commands such as `watch` talk to; host and port if unset."
    )
    key: str | None = Field(None, description="API key that these commands send.", json_schema_extra={"secret": True})
    live: Live = Live()
    final: Final = Final()
    engines: Engines = Engines()
    models: Models = Models()
    batch: Batch = Batch()
    gpu: Gpu = Gpu()
    jobs: Jobs = Jobs()
    sources: Sources = Sources()
    retention: Retention = Retention()
    cleanup: Cleanup = Cleanup()
    log: Log = Log()
    openai: OpenAI = OpenAI()

    @property
    def models_folder(self) -> Path:
        return self.models.dir or self.data_dir / "models"


PRESETS: dict[str, dict[str, Any]] = {
    "none": {},
    "low-latency": {"live.model": "tiny", "final.model": "base", "batch.max": 2, "final.profile": "fast"},
    "throughput": {"live.model": "base", "final.model": "base", "batch.min": 4, "final.profile": "fast"},
    "balanced": {"live.model": "base", "final.model": "small", "final.profile": "balanced"},
}
GPU_PRESETS: dict[str, dict[str, Any]] = {
    "low-latency": {"live.model": "small", "final.model": "small"},
    "throughput": {"final.model": "large-v3-turbo", "compute_type": "int8_float16", "batch.max": 16},
    "balanced": {"final.model": "large-v3"},
}


@dataclass(frozen=True, slots=True)
class Loaded:
    """The settings in force, and for each path where it came from: "--port", "CALLREEL_PORT", a file's name, ..."""

    settings: Settings
    origins: dict[str, str]


def fields() -> Iterator[tuple[str, FieldInfo]]:
    """Every setting by its path, `section.name`, in the order of documentation."""
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            for below, inner in field.annotation.model_fields.items():
                yield f"{name}.{inner.alias or below}", inner
        else:
            yield name, field


def variable(path: str) -> str:
    return PREFIX + path.replace(".", "_").upper()


def value_of(settings: Settings, path: str) -> Any:
    """The value in force under a path of `fields`."""
    value: Any = settings
    for part in path.split("."):
        value = getattr(value, "json_" if part == "json" else part)
    return value


def load(
    flags: Mapping[str, object],
    *,
    environment: Mapping[str, str] = os.environ,
    names: Mapping[str, str] = MappingProxyType({}),
) -> Loaded:
    """The settings, of `flags` (path -> value, None where not given) and everything below them.

    `names` has the flags that are not called as their path is (path -> "--name").
    Raises InvalidInput, which names the setting: one that is not known (and the nearest that is), or a wrong value.
    """
    known = [path for path, _ in fields()]
    chosen = {
        **_of_file(Path(environment.get("CALLREEL_CONFIG", FILE)), known, required="CALLREEL_CONFIG" in environment),
        **_of_environment(environment, known),
        **{path: (value, names.get(path, f"--{_flag(path)}")) for path, value in flags.items() if value is not None},
    }
    preset = str(chosen.get("preset", ("none", ""))[0])
    of_preset = PRESETS.get(preset, {}) | (GPU_PRESETS.get(preset, {}) if _has_gpu() else {})
    if "model" in chosen:  # a model that was asked for is not outdone by a preset's
        of_preset = {path: value for path, value in of_preset.items() if not path.endswith(".model")}
    merged = {path: (value, f"preset {preset}") for path, value in of_preset.items()} | chosen
    nested: dict[str, Any] = {}
    for path, (value, _) in merged.items():
        section, _, name = path.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[name] = value
    try:
        settings = Settings(**nested)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"][:2])
        origin = merged[path][1] if path in merged else "?"
        raise InvalidInput(f"The setting {path!r} ({origin}) is not right: {first['msg']}", hint=HINT) from error
    return Loaded(settings, {path: merged[path][1] if path in merged else "default" for path in known})


def _flag(path: str) -> str:
    return path.replace(".", "-").replace("_", "-")


def _of_file(file: Path, known: list[str], *, required: bool) -> dict[str, tuple[Any, str]]:
    try:
        tables = tomllib.loads(file.read_text())
    except FileNotFoundError:
        if required:
            raise InvalidInput(f"There is no {file}", hint="CALLREEL_CONFIG names the file of settings") from None
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise InvalidInput(f"{file} cannot be read: {error}", hint=HINT) from error
    sections = {path.partition(".")[0] for path in known if "." in path}
    found: dict[str, tuple[Any, str]] = {}
    for name, value in tables.items():
        inner = value if name in sections and isinstance(value, dict) else None
        for path, below in [(name, value)] if inner is None else [(f"{name}.{k}", v) for k, v in inner.items()]:
            _require_known(path, known, file.name)
            found[path] = below, file.name
    return found


def _of_environment(environment: Mapping[str, str], known: list[str]) -> dict[str, tuple[Any, str]]:
    paths = {variable(path): path for path in known}
    found: dict[str, tuple[Any, str]] = {}
    for name, value in environment.items():
        if not name.startswith(PREFIX) or name in OWN_VARIABLES or name.startswith(TEST_VARIABLES):
            continue
        _require_known(name, list(paths), "the environment")
        found[paths[name]] = value, name
    return found


def _require_known(name: str, known: list[str], where: str) -> None:
    if name in known:
        return
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    meant = f"Did you mean {nearest[0]}? " if nearest else ""
    raise InvalidInput(f"There is no setting {name!r} (in {where})", hint=f"{meant}{HINT}")


def _has_gpu() -> bool:
    return Path("/proc/driver/nvidia/version").exists()
