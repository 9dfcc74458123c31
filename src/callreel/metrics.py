"""Every number Callreel tells of itself, for /metrics."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

SECONDS = (0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30)
LAG = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.2, 0.5, 1)

requests = Counter("requests_total", "HTTP requests answered", ["method", "route", "status"])
request_duration = Histogram(
    "request_duration_seconds",
    "From a request's head to the end of its answer",
    ["method", "route"],
    buckets=(0.001, 0.0025, 0.005, *SECONDS, 60, 600),
)
event_loop_lag = Histogram("event_loop_lag_seconds", "How late the event loop runs a timer", buckets=LAG)
live_streams = Gauge("live_streams", "Open live streams")
live_audio = Counter("live_audio_seconds_total", "Audio accepted from live streams")
live_decode = Histogram("live_decode_seconds", "One decode of a batch of live windows", ["kind"], buckets=SECONDS)
live_windows = Counter("live_windows_total", "Windows decoded for live streams", ["kind"])
live_final_wait = Histogram("live_final_wait_seconds", "From the endpoint to the final words", buckets=SECONDS)
engine_restarts = Counter("engine_restarts_total", "Engine processes started again after they died", ["role"])
jobs_ended = Counter("jobs_total", "Attempts of jobs that ended", ["kind", "state"])
job_duration = Histogram(
    "job_duration_seconds", "Wall time of one attempt of a job", ["kind"], buckets=(*SECONDS, 60, 600)
)
task_queue_length = Gauge("task_queue_length", "Jobs that wait for their turn", ["kind"])
gpu_memory = Gauge("gpu_memory_usage_bytes", "Memory of a graphics card that is taken, by whomever", ["gpu", "name"])
webhook_tries = Counter("webhook_tries_total", "Deliveries tried, by how that ended", ["outcome"])
transcription_rtfx = Histogram(
    "transcription_rtfx", "Audio time over processing time", buckets=(0.1, 0.5, 1, 2, 5, 10, 20, 50, 100, 500)
)
model_memory = Gauge("model_memory_bytes", "Resident memory of an engine process", ["role", "model"])
