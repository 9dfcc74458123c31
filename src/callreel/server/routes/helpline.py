"""/audio: the paths of the helpline AI service, over the same jobs."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from callreel.jobs import store as jobs
from callreel.server import helpline, sse
from callreel.server.forgetting import forget_job
from callreel.server.forms import Upload, described
from callreel.server.helpline import ProcessRequest
from callreel.server.intake import Order, require_room, submit
from callreel.server.services import Client, House, Services
from callreel.server.uploads import received
from callreel.server.waiting import Waiting, unless_hung_up
from callreel.tasks import transcribe

router = APIRouter(prefix="/audio", tags=["helpline"])

FORM = described(ProcessRequest, audio="Audio or video, any that FFmpeg reads")
MOST_TASKS = 200


@router.post("/process", status_code=202, openapi_extra=FORM, responses={200: {"description": "With background=false"}})
async def process(house: House, client: Client, request: Request) -> Response:
    """Transcribe a file: the answer is a task to ask for, or, with background=false, its result."""
    await require_room(house, client)
    async with received(house, request) as form:
        asked = form.parsed(ProcessRequest)
        order = _order(house, client, asked, form.file("audio"))
        if asked.background:
            job, _ = await submit(house, order)
            return JSONResponse(await house.database.read(lambda conn: helpline.queued(house, conn, job)), 202)
        waiting = await Waiting.begin(house, order)
    async with waiting:
        done = await unless_hung_up(request, waiting.result())
        return JSONResponse(await house.database.read(lambda conn: helpline.task(conn, done.job)))


@router.post(
    "/process-stream-realtime",
    response_class=sse.EventStream,
    status_code=200,
    responses=sse.DESCRIBED,
    openapi_extra=FORM,
)
async def process_stream(house: House, client: Client, request: Request) -> Response:
    """As process, with server-sent events of each step and of the text as it is certain; who hangs up cancels it."""
    await require_room(house, client)
    async with received(house, request) as form:
        asked = form.parsed(ProcessRequest)
        waiting = await Waiting.begin(house, _order(house, client, asked, form.file("audio")))
    return sse.EventStream(helpline.frames(house, waiting), waiting.leave)


def _order(house: Services, client: str, asked: ProcessRequest, upload: Upload) -> Order:
    params = transcribe.Params(asked.options(house), sha256=upload.sha256)
    return Order(client, params, upload, upload.title)


@router.get("/task/{task_id}")
async def task(house: House, client: Client, task_id: str) -> dict[str, Any]:
    """A task: queued, processing, completed with its result, or failed."""
    return await house.database.read(lambda conn: helpline.task(conn, jobs.get(conn, task_id, client)))


@router.delete("/task/{task_id}")
async def cancel(house: House, client: Client, task_id: str) -> dict[str, Any]:
    """Cancel a task, or forget one that has ended."""
    job = await house.database.read(lambda conn: jobs.get(conn, task_id, client))
    if job.state in jobs.FINISHED:
        await forget_job(house, task_id, client)
        said = "Task removed"
    else:
        house.runner.cancelled(await house.database.write(lambda conn: transcribe.cancel(conn, task_id, client)))
        said = "Task cancelled successfully"
    return {"status": "success", "message": said, "task_id": task_id}


@router.get("/tasks/active")
async def active(
    house: House, client: Client, limit: Annotated[int, Query(ge=1, le=MOST_TASKS)] = 50
) -> dict[str, Any]:
    """Your tasks that have not ended."""
    return await house.database.read(lambda conn: helpline.active(conn, client, limit))


@router.get("/queue/status")
async def queue_status(house: House, client: Client) -> dict[str, Any]:
    """How many tasks wait and run, of all clients."""
    return await house.database.read(lambda conn: helpline.queue(house, conn))


@router.get("/workers/status")
async def workers_status(house: House, client: Client) -> dict[str, Any]:
    """What runs tasks, and how busy it is."""
    return await house.database.read(lambda conn: helpline.workers(house, conn))
