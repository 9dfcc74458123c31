"""Settings: flags over CALLREEL_* variables over callreel.toml over defaults."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource


class Settings(BaseSettings):
    """All that can be set; each field's description is its documentation. Flags come in as `Settings(name=value)`."""

    model_config = SettingsConfigDict(env_prefix="CALLREEL_", toml_file="callreel.toml", extra="forbid")

    data: Path = Field(Path("data"), description="The data folder: database, recordings, logs of live audio, models.")
    host: str = Field("127.0.0.1", description="Address to listen on. Beyond loopback every request needs an API key.")
    port: int = Field(8125, ge=0, le=65535, description="Port of the HTTP API. 0: any free one.")
    live_port: int = Field(9090, ge=0, le=65535, description="Port of WhisperLive's protocol. 0: any free one.")

    engine: str = Field(
        "auto", description="Speech engine of files: auto, whisper, pocketsphinx, or package.module:function."
    )
    model: str = Field("small", description="Model of files: a size, a hub repository id, or a folder.")
    live_engine: str | None = Field(None, description="Speech engine of live streams; the same as for files if unset.")
    live_model: str | None = Field(None, description="Model of live streams; the same as for files if unset.")
    models: Path | None = Field(
        None, description="Where downloaded models are kept; models/ in the data folder if unset."
    )
    download: bool = Field(False, description="May a missing model be fetched from the hub?")
    engine_threads: int = Field(
        os.cpu_count() or 1, ge=1, description="Decodes that run at once in each engine process, one core each."
    )
    min_window_s: float | None = Field(
        None, ge=0, le=30, description="Shorter windows are padded with silence up to this; the model's own if unset."
    )

    endpoint_silence_s: float = Field(0.35, ge=0.1, le=5, description="Silence that ends an utterance, seconds.")
    hop_s: float = Field(0.5, ge=0.1, le=10, description="New audio between two partial decodes of a stream, seconds.")
    stall_s: float = Field(
        1.5, ge=0.5, le=60, description="Without new audio for so long, what was said is completed, seconds."
    )
    fsync: Literal["never", "group"] = Field(
        "never", description="When live audio is forced to the disk: never, or every group."
    )
    stream_buffer_s: float = Field(
        30.0, ge=1, description="Audio of a stream that may wait for the disk; then its socket is not read any more."
    )

    job_slots: int = Field(1, ge=0, description="Jobs that run at once.")
    job_memory_bytes: int = Field(8 << 30, ge=1 << 30, description="Address space of a job's process.")
    job_lease_s: float = Field(30.0, ge=1, description="A job whose worker is silent for so long is queued again.")
    max_upload_bytes: int = Field(4 << 30, ge=1, description="Larger uploads are refused.")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls)

    @property
    def models_folder(self) -> Path:
        return self.models or self.data / "models"
