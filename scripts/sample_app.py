"""A small application server on Python's standard library, as an upstream for scripts/soak.

    python3 sample_app.py PORT

HTTP/1.1, kept connections, one thread each. POST /app/digest answers with length and digest of
the body; /app/mirror sends the body back; GET /app/page?n=N a page naming N assets; /app/asset/N
a body that follows from N, with an ETag; /app/chunked/N the same in chunks; /app/slow/MS the same
after a pause; /app/status/CODE an empty answer of that status.
"""

import hashlib
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BLOCK = 65536


def asset(number):
    """The body of asset `number`: up to about 100 KB, the same in every process."""
    seed = hashlib.blake2b(str(number).encode()).digest()
    return (seed * 1600)[: 1 + number * 7919 % 100_000]


class App(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    # One segment per response instead of one for the head and one for the body.
    wbufsize = -1
    disable_nagle_algorithm = True

    def log_message(self, *_):
        pass

    def handle_expect_100(self):
        """The client waits for this answer, so that it cannot wait in the buffer."""
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def answer(self, status, body=b"", **fields):
        self.send_response(status)
        if status != 304:
            self.send_header("Content-Length", str(len(body)))
        for name, value in fields.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD" and status != 304:
            self.wfile.write(body)

    def body(self):
        """The request's body, in blocks."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            while self.rfile.readline().strip():
                pass
            return
        left = int(self.headers.get("Content-Length", 0))
        while left:
            block = self.rfile.read(min(left, BLOCK))
            if not block:
                self.close_connection = True
                return
            left -= len(block)
            yield block

    def do_POST(self):
        if self.path == "/app/mirror":
            return self.answer(200, b"".join(self.body()))
        digest, length = hashlib.blake2b(), 0
        for block in self.body():
            digest.update(block)
            length += len(block)
        text = json.dumps({"length": length, "digest": digest.hexdigest()})
        return self.answer(200, text.encode(), Content_Type="application/json")

    do_PUT = do_POST

    def do_GET(self):
        path, _, query = self.path.partition("?")
        _, kind, *rest = path.strip("/").split("/")
        number = int(rest[0]) if rest else 0
        if kind == "page":
            assets = [f"/app/asset/{n}" for n in range(int(query.removeprefix("n=") or 10))]
            return self.answer(200, json.dumps(assets).encode(), Content_Type="application/json")
        if kind == "status":
            return self.answer(number)
        if kind == "slow":
            time.sleep(number / 1000)
        if kind == "chunked":
            return self.chunked(asset(number))
        etag = f'"asset-{number}"'
        if self.headers.get("If-None-Match") == etag:
            return self.answer(304, ETag=etag)
        return self.answer(200, asset(number), ETag=etag)

    do_HEAD = do_GET

    def chunked(self, body):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for start in range(0, len(body), 10_000):
            part = body[start:start + 10_000]
            self.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
        self.wfile.write(b"0\r\n\r\n")


class Server(ThreadingHTTPServer):
    request_queue_size = 1024
    daemon_threads = True

    def handle_error(self, *_):
        """A client that goes away is ordinary here: the soak aborts on purpose."""


if __name__ == "__main__":
    Server(("127.0.0.1", int(sys.argv[1])), App).serve_forever()
