"""A local HTTP server with ranges that fails on purpose."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class FailingServer:
    """Serves the files of a folder. ``statuses`` are the answers to the next requests for content; None serves it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.statuses, self.always, self.num_requests = folder, list[int](), 0, 0
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._answer(with_content=False)

            def do_GET(self) -> None:
                self._answer(with_content=True)

            def _answer(self, *, with_content: bool) -> None:
                if with_content and (status := owner.next_status()):
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                path = owner.folder / self.path.lstrip("/")
                if not path.is_file():
                    self.send_response(404)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                content, status = path.read_bytes(), 200
                size = len(content)
                suffix = re.fullmatch(r"bytes=-(\d+)", self.headers.get("Range", ""))
                if suffix and with_content:
                    start, status = max(0, size - int(suffix[1])), 206
                    content = content[start:]
                wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
                if wanted and with_content:
                    start, end = int(wanted[1]), int(wanted[2] or size - 1)
                    content, status = content[start : end + 1], 206
                self.send_response(status)
                self.send_header("Accept-Ranges", "bytes")
                if status == 206:
                    self.send_header("Content-Range", f"bytes {start}-{start + len(content) - 1}/{size}")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if with_content:
                    self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def next_status(self) -> int:
        self.num_requests += 1
        return self.statuses.pop(0) if self.statuses else self.always

    def serve(self) -> None:
        self._server.serve_forever(poll_interval=0.01)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def failing_server(folder: Path) -> Iterator[FailingServer]:
    server = FailingServer(folder)
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()
