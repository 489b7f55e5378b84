"""A server on 127.0.0.1 that sends a file, and breaks off, stalls or lies as it is told."""

import contextlib
import gzip
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = b"\n<!DOCTYPE html><html><body>Log in to go on</body></html>\n"


class Handler(BaseHTTPRequestHandler):
    """Serve the server's `content` with ranges; its `plan` says what each request meets instead.

    A number below 600 is a status, a greater one the bytes after which it breaks off; an address
    is where it redirects to, "endless redirect" with a body that has no end. The last item of the
    plan stays.
    """

    def do_GET(self):
        self.server.ranges.append(self.headers.get("Range"))
        self.server.encodings.add(self.headers.get("Accept-Encoding"))
        plan = self.server.plan
        what = plan.pop(0) if len(plan) > 1 else plan[0] if plan else "whole"
        if isinstance(what, int) and what < 600:
            self.send_error(what)
            return
        if what == "endless redirect":
            self.send_response(302)
            self.send_header("Location", self.server.url)
            self.end_headers()
            with contextlib.suppress(ConnectionError):
                while True:
                    self.wfile.write(bytes(1 << 20))
        if isinstance(what, str) and ":" in what:
            self.send_response(302)
            self.send_header("Location", what)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content, begin = PAGE if what == "page" else self.server.content, 0
        if self.headers.get("Range") and what not in ("no ranges", "page"):
            begin = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if begin >= len(content):
                self.send_error(416)
                return
            begin = begin // 2 if what == "another range" else begin
            self.send_response(206)
            span = f"bytes {begin}-{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", span)
        else:
            self.send_response(200)
        rest = content[begin:]
        if what == "gzip":
            rest = gzip.compress(rest)
            self.send_header("Content-Encoding", "gzip")
        if what not in ("no length", "short", "endless"):
            announced = {"announces more": 1000, "announces less": -1000}.get(what, 0)
            self.send_header("Content-Length", str(len(rest) + announced))
        self.end_headers()
        if what == "short":
            rest = rest[:100_000]
        with contextlib.suppress(ConnectionError):
            while what == "endless":
                self.wfile.write(rest)
        if isinstance(what, int):
            rest = rest[:what]
        if what == "stall":
            self.wfile.write(rest[:100_000])
            self.wfile.flush()
            time.sleep(1)
            return
        with contextlib.suppress(ConnectionError):  # of a client that was killed
            self.wfile.write(rest)
            self.server.sent += len(rest)

    def log_message(self, *_):
        """Keep the tests' output clean."""


@contextlib.contextmanager
def serve(content, certificate=None):
    """Yield a server of `content`, which counts what it is asked for.

    certificate: a file with its key and certificate, for https.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.content, server.plan, server.ranges, server.sent = content, [], [], 0
    server.encodings, scheme = set(), "http"
    server.handle_error = lambda *_: None  # a client that leaves, or does not trust, is no news
    if certificate:
        context, scheme = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), "https"
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    server.url = f"{scheme}://127.0.0.1:{server.server_port}/archive.zip"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
