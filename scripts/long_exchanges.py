"""Exchanges that last: WebSockets and slow downloads through a proxy, and the memory it takes.

Imported by the scripts beside it. The server behind the proxy and the clients before it run in
processes of their own; what is opened and closed is counted.
"""

import asyncio
import multiprocessing
import threading
import time

import peers

SWITCH = (b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
PIECE = b"x" * 16384
# Of each slow download, per second.
SLOW_BYTES = 2 * len(PIECE)


async def serve_long(reader, writer):
    """Echoes after an upgrade, or sends without end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET /ws"):
            writer.write(SWITCH)
            while part := await reader.read(4096):
                writer.write(part)
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
            while True:
                writer.write(PIECE)
                await writer.drain()
    except (OSError, asyncio.IncompleteReadError):
        pass
    finally:
        writer.close()


def run_server(port):
    async def run():
        server = await asyncio.start_server(serve_long, "127.0.0.1", port, backlog=1024)
        await server.serve_forever()
    asyncio.run(run())


async def websocket(port, opened, closed):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /ws HTTP/1.1\r\nHost: t\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                 b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
    try:
        assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
        opened.value += 1
        while True:
            writer.write(b"is anybody there")
            await asyncio.wait_for(reader.readexactly(16), 10)
            await asyncio.sleep(2)
    except (OSError, AssertionError, asyncio.IncompleteReadError, asyncio.TimeoutError):
        closed.value += 1


async def download(port, opened, closed):
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2 * len(PIECE))
    writer.write(b"GET /big HTTP/1.1\r\nHost: t\r\n\r\n")
    try:
        await reader.readuntil(b"\r\n\r\n")
        opened.value += 1
        while True:
            await asyncio.wait_for(reader.readexactly(len(PIECE)), 10)
            await asyncio.sleep(len(PIECE) / SLOW_BYTES)
    except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
        closed.value += 1


def run_clients(port, websockets, downloads, counts):
    async def run():
        tasks = [websocket(port, *counts[0]) for _ in range(websockets)]
        tasks += [download(port, *counts[1]) for _ in range(downloads)]
        await asyncio.gather(*tasks)
    asyncio.run(run())


class Server:
    """Echoes and endless downloads on a port of 127.0.0.1."""

    def __init__(self, port):
        self.process = multiprocessing.Process(target=run_server, args=(port,), daemon=True)
        self.process.start()
        deadline = time.monotonic() + 20
        while not peers.connect(port) and time.monotonic() < deadline:
            time.sleep(0.05)

    def end(self):
        self.process.terminate()


class Clients:
    """So many WebSockets, which send a message every two seconds, and slow downloads."""

    def __init__(self, port, websockets, downloads):
        self.wanted = [websockets, downloads]
        self.counts = [[multiprocessing.Value("i", 0) for _ in range(2)] for _ in range(2)]
        self.process = multiprocessing.Process(
            target=run_clients, args=(port, websockets, downloads, self.counts), daemon=True)
        self.process.start()

    def opened(self):
        """WebSockets and downloads that have begun."""
        return [count[0].value for count in self.counts]

    def closed(self):
        """Those of them that ended, which none should."""
        return [count[1].value for count in self.counts]

    def wait_open(self, seconds=30):
        """Waits until all are open."""
        deadline = time.monotonic() + seconds
        while self.opened() != self.wanted and time.monotonic() < deadline:
            time.sleep(0.1)

    def end(self):
        self.process.terminate()


class Memory(threading.Thread):
    """Samples the resident memory of all of a proxy's processes."""

    def __init__(self, proxy):
        super().__init__(daemon=True)
        self.proxy, self.peak_kib, self.processes = proxy, 0, 0
        self.stopped = threading.Event()
        self.start()

    def run(self):
        while not self.stopped.wait(0.1):
            pids, total = self.proxy.processes(), 0
            for pid in pids:
                try:
                    total += peers.rss_kib(pid)
                except OSError:
                    pass
            self.peak_kib = max(self.peak_kib, total)
            self.processes = max(self.processes, len(pids))

    def end(self):
        self.stopped.set()
        self.join()
