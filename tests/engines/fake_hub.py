"""A small model hub: what the hub's client asks for when it looks at a repository, and its files, with ranges."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """Serves the files in `folder` as every repository in `repositories`.

    `stop_after` ends each answer with the weights after so many bytes: "hold" leaves the connection open, "cut" closes
    it. `ranges` False: it sends whole files only. `asked` lists (file, Range header) of every download.
    """

    folder: Path
    repositories: tuple[str, ...] = ("Systran/faster-whisper-base", "Systran/faster-whisper-tiny")
    commit: str = COMMIT
    stop_after: int | None = None
    how: str = "hold"
    ranges: bool = True
    status: int = 200
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    authorizations: set[str | None] = field(default_factory=set)

    def __enter__(self) -> Hub:
        hub = self
        self._let_go = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._answer(200, b"")

            def do_GET(self) -> None:
                path = unquote(urlsplit(self.path).path)
                for repository in hub.repositories:
                    if path == f"/api/models/{repository}":
                        return self._answer(hub.status, json.dumps(hub.info(repository)).encode())
                    before = f"/{repository}/resolve/{hub.commit}/"
                    if path.startswith(before):
                        return self._send(hub.folder / path.removeprefix(before))
                return self._answer(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})

            def _send(self, path: Path) -> None:
                asked = self.headers.get("Range")
                hub.asked.append((path.name, asked))
                hub.authorizations.add(self.headers.get("Authorization"))
                data = path.read_bytes()
                begin = int(asked.removeprefix("bytes=").split("-")[0]) if asked and hub.ranges else 0
                self.send_response(206 if begin else 200)
                if begin:
                    self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
                self.send_header("Content-Length", str(len(data) - begin))
                self.end_headers()
                stop = hub.stop_after if path.name == "model.bin" else None
                self.wfile.write(data[begin : begin + stop] if stop is not None else data[begin:])
                if stop is not None and begin + stop < len(data):
                    self.wfile.flush()
                    if hub.how == "hold":
                        hub._let_go.wait()
                    self.close_connection = True

            def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
                self.send_response(status)
                for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._let_go.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def info(self, repository: str) -> dict[str, object]:
        siblings = []
        for path in sorted(self.folder.iterdir()):
            data = path.read_bytes()
            file = {"rfilename": path.name, "size": len(data), "blobId": hashlib.sha1(data).hexdigest()}
            if path.name == "model.bin":
                file["lfs"] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "pointerSize": 134}
            siblings.append(file)
        return {"_id": "1", "id": repository, "modelId": repository, "sha": self.commit, "siblings": siblings}
