"""The server process: what it starts, in which order, and how all of it ends."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import uvicorn

from callreel import logs, metrics
from callreel.accounts import keys
from callreel.engines import gpu
from callreel.engines.remote import AsyncRemoteEngine
from callreel.errors import InvalidInput
from callreel.jobs import store as jobs
from callreel.jobs import webhooks
from callreel.live.listener import Listener
from callreel.live.scheduler import Scheduler
from callreel.live.service import LiveEngine, LiveService
from callreel.live.session import LiveOptions
from callreel.live.tracklog import TrackLog
from callreel.server.app import create_app
from callreel.server.connections import KEEP_ALIVE_S, BoundedProtocol, room
from callreel.server.pool import EnginePool, PoolLimits, default_memory
from callreel.server.services import Services
from callreel.server.sockets import whisperlive
from callreel.server.speech import Speech
from callreel.settings import Settings
from callreel.storage.database import Database
from callreel.storage.events import EventHub
from callreel.storage.folders import DataFolder
from callreel.storage.removal import remove_call
from callreel.tasks import transcribe
from callreel.tasks.cleaner import Cleaner
from callreel.tasks.runner import Runner, RunnerLimits, requeue_abandoned
from callreel.tasks.webhooks import Courier
from callreel.transcripts.collector import Collector

log = logging.getLogger("callreel.server")

LAG_EVERY_S = 0.02
DRAIN_S = 5.0  # what waits for the database gets so long when the server stops; recovery does the rest
GRACE_S = 5  # for HTTP requests under way


def run(settings: Settings) -> None:
    """Serve until SIGINT or SIGTERM."""
    import uvloop

    logs.set_up(settings.log.level, as_json=settings.log.json_)
    uvloop.run(_main(settings))


async def _main(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for signum in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(signum, stop.set)
    async with AsyncExitStack() as stack:
        services = await stack.enter_async_context(start(settings))
        left_open = await services.live.left_open()  # before a stream of our own is among them
        port = await stack.enter_async_context(_http(services))
        live = await stack.enter_async_context(whisperlive.listen(services, settings.host, settings.live.port))
        live_port = live.sockets[0].getsockname()[1]
        for warning in services.engine_warnings:
            log.warning(warning)
        log.info("ready: http://%s:%d/docs, live streams on port %d", settings.host, port, live_port)
        recovery = asyncio.create_task(services.live.recover(left_open), name="recovery")
        await stop.wait()
        recovery.cancel()
        await asyncio.gather(recovery, return_exceptions=True)


@asynccontextmanager
async def start(settings: Settings) -> AsyncIterator[Services]:
    """Everything but the sockets, ready to serve; all of it ends with the context."""
    folder = DataFolder(settings.data_dir.absolute())
    async with AsyncExitStack() as stack:
        folder.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        database = await asyncio.to_thread(Database.open, folder.root)
        stack.callback(database.close)
        folder.create()  # only now: the lock says that no other server uses it
        local_client = await _first_client(database, settings.host)
        abandoned = await database.write(lambda conn: requeue_abandoned(conn, time.time(), all_running=True))
        folder.clear_work(await database.read(jobs.unfinished))
        if abandoned:
            log.info("%d jobs of the server before this one are queued again", len(abandoned))

        await _forget_unkept(database, folder)
        events = EventHub()
        speech = Speech(settings, await stack.enter_async_context(_pool(settings, folder)))
        _, file_warnings = await speech.resolve(None, None, _say_download)
        live = await _live(stack, settings, folder, database, events, speech)
        runner = Runner(database, events, folder, speech, _limits(settings))
        runner.start()
        stack.push_async_callback(runner.stop)
        courier = Courier(database, allow_networks=settings.sources.allow_networks)
        await database.write(webhooks.take_back)
        courier.start()
        stack.push_async_callback(courier.stop)
        cleaner = Cleaner(database, folder, settings.retention, interval_s=settings.cleanup.interval)
        cleaner.start()
        stack.push_async_callback(cleaner.stop)
        lag = asyncio.create_task(_measure_lag(), name="lag")
        stack.callback(lag.cancel)
        yield Services(settings, folder, database, events, runner, live, speech, local_client, tuple(file_warnings))


async def _forget_unkept(database: Database, folder: DataFolder) -> None:
    """Remove what the clients of the server before this one waited for."""
    for call_id in await database.write(transcribe.forget_unkept):
        await asyncio.to_thread(remove_call, folder, call_id)


@asynccontextmanager
async def _pool(settings: Settings, folder: DataFolder) -> AsyncIterator[EnginePool]:
    models, card = settings.models, gpu.first()
    limits = PoolLimits(
        memory=models.memory or default_memory(),
        gpu_memory=int(card.total_bytes * settings.gpu.memory_share) if card is not None else 0,
        max_loaded=models.max_loaded,
        unload=models.unload,
        idle_s=models.idle_s,
    )
    pool = EnginePool(folder.run, limits)
    pool.start()
    try:
        yield pool
    finally:
        await pool.stop()


async def _live(
    stack: AsyncExitStack,
    settings: Settings,
    folder: DataFolder,
    database: Database,
    events: EventHub,
    speech: Speech,
) -> LiveService:
    """Live streams, their engine loaded; all of it ends with `stack`."""
    loop = asyncio.get_running_loop()
    spec, warnings = await speech.resolve_live(_say_download)
    lease = await stack.enter_async_context(speech.lease("live", spec))
    collector = Collector(database)
    stack.push_async_callback(_drain, collector)
    tracklog = TrackLog(
        folder.live, deliver=loop.call_soon_threadsafe, on_trouble=_say_trouble, fsync=settings.live.fsync
    )
    stack.callback(tracklog.shutdown)
    listener = Listener(loop.call_soon_threadsafe)
    stack.callback(listener.shutdown)
    remote = AsyncRemoteEngine(lease.path)
    stack.callback(remote.close)
    hello = await remote.hello()
    scheduler = Scheduler(
        remote,
        slots=settings.engines.threads,
        max_batch=hello.capabilities.batch,
        min_window_s=hello.capabilities.min_window_s,
    )
    scheduler.start()
    stack.push_async_callback(scheduler.stop)
    return LiveService(
        database=database,
        collector=collector,
        events=events,
        folder=folder,
        log_=tracklog,
        listener=listener,
        scheduler=scheduler,
        engine=LiveEngine(hello.name, hello.model, hello.capabilities, tuple(warnings)),
        defaults=LiveOptions(
            endpoint_silence_s=settings.live.endpoint_silence_s,
            hop_s=settings.live.hop_s,
            max_window_s=hello.capabilities.max_window_s,
        ),
        buffer_s=settings.live.buffer_s,
    )


def _limits(settings: Settings) -> RunnerLimits:
    jobs = settings.jobs
    # Decodes share the engine's threads; a job more than there are cores would only wait with its file in memory.
    most = None if "max_concurrent" in jobs.model_fields_set else os.cpu_count() or 1
    return RunnerLimits(
        slots={kind: min(slots, most or slots) for kind, slots in jobs.max_concurrent.items()},
        lease_s=jobs.lease_s,
        memory_bytes=jobs.memory,
        batch_min=settings.batch.min,
        batch_max=settings.batch.max,
        max_audio_s=jobs.max_audio_s,
        max_file_bytes=settings.max_file_size,
        fetch_timeout_s=settings.sources.timeout_s,
        allow_networks=settings.sources.allow_networks,
        cache_ttl_s=jobs.cache_ttl_s,
        performance=settings.log.performance,
    )


async def _say_download(percent: float) -> None:
    log.info("downloading the model: %.0f %%", percent)


async def _first_client(database: Database, host: str) -> str | None:
    """Who asks without a key: the local client on loopback, nobody beyond it, where a first key is made and shown."""
    if _is_loopback(host):
        return await database.write(keys.ensure_local_client)
    if not await database.read(keys.any_key):
        _, key = await database.write(lambda conn: keys.create_client(conn, "admin", "admin"))
        log.warning("this server listens beyond loopback: its first API key, shown only now, is %s", key)
    return None


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which may lead anywhere but for this one
        return host == "localhost"


async def _drain(collector: Collector) -> None:
    try:
        async with asyncio.timeout(DRAIN_S):
            await collector.close()
    except TimeoutError:
        log.error("the database is away; live words not stored yet are decoded again from the log at the next start")


def _say_trouble(error: OSError | None) -> None:
    if error is None:
        log.warning("live audio is written to the disk again")
    else:
        log.error("live audio cannot be written, it waits in memory: %s", error)


async def _measure_lag() -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + LAG_EVERY_S
        await asyncio.sleep(LAG_EVERY_S)
        metrics.event_loop_lag.observe(max(0.0, loop.time() - due))


class _Http(uvicorn.Server):
    """uvicorn without its own signal handlers: this process has one place that knows when it ends."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def _http(services: Services) -> AsyncIterator[int]:
    """The HTTP API while the context lasts; gives its port."""
    with _bound(services.settings.host, services.settings.port) as listener:
        async with _serving(services, listener):
            yield listener.getsockname()[1]


def _bound(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise InvalidInput(
            f"Cannot listen on {host}:{port}: {error.strerror}", hint="Choose another with --host or --port"
        ) from error


@asynccontextmanager
async def _serving(services: Services, listener: socket.socket) -> AsyncIterator[None]:
    config = uvicorn.Config(
        create_app(services),
        log_config=None,
        access_log=False,
        lifespan="off",
        http=BoundedProtocol,
        limit_concurrency=room(),
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
        server_header=False,
    )
    server = _Http(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="http")
    try:
        yield
    finally:
        server.should_exit = True
        for watcher in services.watchers:
            watcher.close()
        await serving
