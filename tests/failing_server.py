"""A local HTTP server that fails on purpose."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

RESET = -1
"""In place of a status: the connection is closed without an answer."""


class FailingServer:
    """Serves the files of a folder.

    Attributes:
        statuses: answers to the next requests for content; None serves it.
        always: answer to all further requests for content; 0 serves it.
        heads_too: whether these are also the answers to requests for headers.
        by_path: answers to all requests for a path.
        has_ranges: whether ranges are served; otherwise every answer is the whole file.
        num_cut: how many of the next answers with content end in the middle.
        sent: path and number of bytes of every answer with content.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.num_requests = folder, 0
        self.reset()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._answer(with_content=False)

            def do_GET(self) -> None:
                self._answer(with_content=True)

            def _answer(self, *, with_content: bool) -> None:
                name = self.path.partition("?")[0].lstrip("/")
                path = owner.folder / name
                status = owner.by_path.get(name, 0)
                status = status or (owner.next_status() if with_content or owner.heads_too else 0)
                if status == RESET:
                    self.close_connection = True
                elif status or not path.is_file():
                    self.send_response(status or 404)
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                else:
                    self._serve(name, path.read_bytes(), with_content=with_content)

            def _serve(self, name: str, content: bytes, *, with_content: bool) -> None:
                size, status, start = len(content), 200, 0
                wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
                if wanted and with_content and owner.has_ranges:
                    status = 206
                    start = int(wanted[1]) if wanted[1] else max(0, size - int(wanted[2]))
                    content = content[start : int(wanted[2]) + 1 if wanted[1] and wanted[2] else size]
                self.send_response(status)
                if owner.has_ranges:
                    self.send_header("Accept-Ranges", "bytes")
                if status == 206:
                    self.send_header("Content-Range", f"bytes {start}-{start + len(content) - 1}/{size}")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if with_content:
                    served = owner.cut(content)
                    self.close_connection = self.close_connection or len(served) < len(content)
                    owner.sent.append((name, len(served)))
                    self.wfile.write(served)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """Say nothing: a client may leave in the middle of an answer."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def reset(self) -> None:
        """Serve everything."""
        self.statuses, self.always, self.heads_too = list[int](), 0, False
        self.by_path, self.has_ranges, self.num_cut = dict[str, int](), True, 0
        self.sent = list[tuple[str, int]]()

    def next_status(self) -> int:
        self.num_requests += 1
        return self.statuses.pop(0) if self.statuses else self.always

    def cut(self, content: bytes) -> bytes:
        if self.num_cut == 0 or len(content) < 1000:
            return content
        self.num_cut -= 1
        return content[: len(content) // 2]

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
