"""Drives headless Chromium by its DevTools protocol, over a WebSocket client of a few lines.

Imported by scripts/status-page, scripts/grpc-web-check and scripts/oidc-login; needs Python 3.9 and nothing else. The
browser started here gets a profile of its own, and ends with the script.
"""

import atexit
import base64
import json
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time

ANSWER_SECONDS_MAX = 30


class Failed(Exception):
    """The browser, or something in the page, did not do what was asked."""


class Checks:
    """What holds and what does not, told as it is found out; `failed` counts the latter."""

    def __init__(self, shows_good=True):
        """With `shows_good`, what was found is shown also where it is as it should be."""
        self.failed, self.shows_good = 0, shows_good

    def that(self, what, holds, found=""):
        self.failed += not holds
        is_shown = found != "" and (self.shows_good or not holds)
        more = f": {found}" if is_shown else ""
        print(f"{'ok  ' if holds else 'FAIL'}  {what}{more}", flush=True)


class WebSocket:
    """Text messages to and from a local server (RFC 6455), unmasked in, masked out."""

    def __init__(self, url):
        host, port, path = re.match(r"ws://([^:/]+):(\d+)(/.*)", url).groups()
        self.socket = socket.create_connection((host, int(port)), ANSWER_SECONDS_MAX)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
            "Sec-WebSocket-Version: 13\r\n\r\n".encode())
        self.incoming = self.socket.makefile("rb")
        status = self.incoming.readline()
        if b" 101 " not in status:
            raise Failed(f"no WebSocket: {status!r}")
        while self.incoming.readline() not in (b"\r\n", b""):
            pass

    def send(self, text):
        data = text.encode()
        mask = os.urandom(4)
        size = len(data)
        head = b"\x81" + (bytes([0x80 | size]) if size < 126
                          else struct.pack(">BH", 0xFE, size) if size < 65536
                          else struct.pack(">BQ", 0xFF, size))
        masked = bytes(byte ^ mask[n % 4] for n, byte in enumerate(data))
        self.socket.sendall(head + mask + masked)

    def receive(self, seconds_max=ANSWER_SECONDS_MAX):
        """The next message; None when none comes in time."""
        self.socket.settimeout(seconds_max)
        message = b""
        try:
            while True:
                first, second = self.incoming.read(2)
                size = second & 0x7F
                if size == 126:
                    size, = struct.unpack(">H", self.incoming.read(2))
                elif size == 127:
                    size, = struct.unpack(">Q", self.incoming.read(8))
                part = self.incoming.read(size)
                if first & 0x0F in (0, 1, 2):
                    message += part
                    if first & 0x80:
                        return message.decode()
        except (TimeoutError, socket.timeout):
            # What was half read cannot be read again: makefile allows no second try.
            return None


class Browser:
    """Headless Chromium with one page. `errors` holds what its console complained of."""

    def __init__(self):
        program = shutil.which("chromium") or shutil.which("google-chrome")
        if not program:
            raise Failed("no Chromium: scripts/setup page")
        self.profile = tempfile.mkdtemp(prefix="ringway-chromium-")
        # Its sandbox needs what containers do not give; the only page it sees is ours.
        self.process = subprocess.Popen(
            [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
             "--no-first-run", "--disable-background-networking", "--remote-debugging-port=0",
             f"--user-data-dir={self.profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)
        atexit.register(self.close)
        for line in self.process.stderr:
            found = re.search(r"listening on (ws://\S+)", line)
            if found:
                break
        else:
            raise Failed("Chromium ended without saying where it listens")
        self.socket = WebSocket(found[1])
        self.last_id, self.session, self.errors = 0, None, []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        self.last_id += 1
        message = {"id": self.last_id, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        self.socket.send(json.dumps(message))
        while True:
            text = self.socket.receive()
            if text is None:
                raise Failed(f"Chromium does not answer {method}")
            answer = json.loads(text)
            self.note(answer)
            if answer.get("id") == self.last_id:
                if "error" in answer:
                    raise Failed(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def note(self, event):
        """Keeps what the console says: exceptions, errors and violations of the policy."""
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            details = parameters["exceptionDetails"]
            self.errors.append(details.get("exception", {}).get("description", details["text"]))
        elif event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            entry = parameters["entry"]
            self.errors.append(f"{entry['text']} {entry.get('url', '')}".strip())
        elif event.get("method") == "Runtime.consoleAPICalled" and parameters["type"] == "error":
            self.errors.append(str([arg.get("value") for arg in parameters["args"]]))

    def open(self, url, width, height, scale=1, scheme="light"):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=scale, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia",
                  features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=url)

    def run(self, script):
        """The value of a JavaScript expression."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True,
                           awaitPromise=True)
        if "exceptionDetails" in answer:
            raise Failed(f"{script}: {answer['exceptionDetails']['exception']['description']}")
        return answer["result"].get("value")

    def wait(self, what, script, seconds_max=20):
        """Waits until an expression is true and answers with its value."""
        end = time.monotonic() + seconds_max
        while time.monotonic() < end:
            value = self.run(script)
            if value:
                return value
            time.sleep(0.1)
        raise Failed(f"waited {seconds_max} s in vain: {what}")

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key,
                      windowsVirtualKeyCode={"Tab": 9, "ArrowLeft": 37}.get(key, 0))

    def screenshot(self, path, whole=False):
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        with open(path, "wb") as file:
            file.write(base64.b64decode(answer["data"]))

    def close(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)
