"""Starts, pins and stops what the measuring scripts compare: Ringway, NGINX, an origin.

Imported by the scripts beside it; needs Python 3.9 and nothing else. Every process started here
is stopped when the script ends, however it ends.
"""

import atexit
import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "loadtest" / "peers"
LOADTEST = ROOT / "target" / "release" / "loadtest"
RINGWAY = ROOT / "target" / "release" / "ringway"

# Where Debian keeps each tool.
PACKAGES = {
    "nginx": "nginx-light",
    "wrk": "wrk",
    "h2load": "nghttp2-client",
    "strace": "strace",
    "valgrind": "valgrind",
    "cc": "gcc",
    "perf": "linux-perf",
    "curl": "curl",
    "chromium": "chromium",
    "taskset": "util-linux",
}


def say(text):
    """Progress goes to stderr, results to stdout."""
    print(text, file=sys.stderr, flush=True)


def need(*tools):
    """Installs missing tools when root on Debian, else says what to install and ends."""
    os.environ["PATH"] += ":/usr/sbin:/sbin"
    missing = [tool for tool in tools if not shutil.which(tool)]
    if not missing:
        return
    packages = sorted({PACKAGES[tool] for tool in missing})
    if os.geteuid() == 0 and shutil.which("apt-get"):
        say(f"installing {' '.join(packages)}")
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        subprocess.run(["apt-get", "update"], check=False, **quiet)
        # The service of a freshly installed NGINX must not start: only ours are measured.
        subprocess.run(
            ["apt-get", "install", "-y", "--no-install-recommends", *packages],
            check=False, env={**os.environ, "RUNLEVEL": "1", "DEBIAN_FRONTEND": "noninteractive"},
            **quiet)
    if any(not shutil.which(tool) for tool in missing):
        sys.exit(f"missing tools; install them: apt-get install {' '.join(packages)}")


def build(*packages):
    """Builds the release binaries under test."""
    wanted = [word for package in packages for word in ("-p", package)]
    subprocess.run(["cargo", "build", "--release", "--quiet", *wanted], cwd=ROOT, check=True)


def workspace():
    """A directory for one run, removed at its end."""
    path = Path(tempfile.mkdtemp(prefix="ringway-"))
    atexit.register(shutil.rmtree, path, True)
    return path


def free_port():
    """A port nobody listens on now, outside the range that clients' own ports come from."""
    for port in range(18000 + os.getpid() % 4000, 32000):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in free_port.given:
            free_port.given.add(port)
            return port
    sys.exit("no free port")


free_port.given = set()


def connect(port):
    """Connects to a port of 127.0.0.1 and closes again; whether that worked."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Process:
    """One started program; `core` pins it, `realtime` keeps other work off its core."""

    def __init__(self, name, command, log, core=None, realtime=False, wrap=()):
        prefix = list(wrap)
        if core is not None:
            prefix = ["taskset", "-c", str(core), *prefix]
        if realtime:
            prefix = ["chrt", "-r", "1", *prefix]
        self.name, self.log = name, Path(log)
        with open(self.log, "wb") as out:
            self.process = subprocess.Popen(
                [*prefix, *map(str, command)], stdout=out, stderr=out, stdin=subprocess.DEVNULL)
        atexit.register(self.stop)

    @property
    def pid(self):
        return self.process.pid

    def wait_port(self, port, seconds=20):
        """Waits until a port of 127.0.0.1 accepts connections."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            if connect(port):
                return self
            time.sleep(0.05)
        sys.exit(f"{self.name} does not listen on {port}:\n{self.log.read_text()[-2000:]}")

    def wait_log(self, text, seconds=20):
        """Waits until the program has logged `text`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            if text in self.log.read_text(errors="replace"):
                return self
            time.sleep(0.05)
        sys.exit(f"{self.name} did not say {text!r}:\n{self.log.read_text()[-2000:]}")

    def stop(self, patience=10):
        """Asks the program to end, then makes it."""
        if self.process.poll() is not None:
            return
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def children(self):
        """Process ids of its children."""
        path = f"/proc/{self.pid}/task/{self.pid}/children"
        return [int(pid) for pid in Path(path).read_text().split()]


class Proxy(Process):
    """A proxy in front of one origin. `worker` is the process that serves."""

    worker = 0
    port = 0


def fill(template, values):
    """Replaces each @NAME@ of a template."""
    return re.sub(r"@([A-Z]+)@", lambda m: str(values[m[1]]), (PEERS / template).read_text())


FIELDS = """
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Forwarded-Host $http_host;
    proxy_set_header X-Request-Id $request_id;
    add_header X-Request-Id $request_id;
"""


def start_nginx(directory, origin_port, routes=0, extra="", fields="", **options):
    """NGINX with the tuned configuration, in front of an origin."""
    directory = Path(directory) / f"nginx-{free_port()}"
    directory.mkdir()
    port = free_port()
    locations = "".join(
        f"        location /svc/{n}/ {{ proxy_pass http://origin; }}\n" for n in range(routes))
    config = directory / "nginx.conf"
    config.write_text(fill("nginx.conf.in", {
        "LISTEN": f"127.0.0.1:{port}", "ORIGIN": f"127.0.0.1:{origin_port}",
        "DIR": directory, "FIELDS": fields,
        "ROUTES": locations + extra.replace("@DIR@", str(directory))}))
    command = ["nginx", "-c", config, "-p", directory, "-e", directory / "error.log"]
    nginx = Proxy("nginx", command, directory / "log", **options).wait_port(port)
    nginx.port, nginx.worker = port, nginx.children()[0]
    return nginx


def start_ringway(directory, origin_port, routes=0, workers=1, io="auto", extra="", program=RINGWAY,
                  **options):
    """Ringway with one upstream and `routes` routes besides `/`."""
    directory = Path(directory) / f"ringway-{free_port()}"
    directory.mkdir()
    port = free_port()
    tables = "".join(
        f'\n[[routes]]\npath = "/svc/{n}"\nupstream = "origin"\n' for n in range(routes))
    config = directory / "ringway.toml"
    config.write_text(fill("ringway.toml.in", {
        "LISTEN": f"127.0.0.1:{port}", "ORIGIN": f"127.0.0.1:{origin_port}",
        "WORKERS": workers, "IO": io, "ROUTES": tables,
        "EXTRA": extra.replace("@DIR@", str(directory))}))
    ringway = Proxy("ringway", [program, "run", config], directory / "log", **options)
    # Slow when it runs under valgrind.
    ringway.wait_log("ready", 120).wait_port(port)
    ringway.port, ringway.worker = port, ringway.pid
    return ringway


def start_floor(directory, origin_port, routes=0, **options):
    """No proxy at all but a forwarder of bytes: the least that a proxy here can cost."""
    port = free_port()
    command = [LOADTEST, "forward", "--listen", f"127.0.0.1:{port}",
               "--to", f"127.0.0.1:{origin_port}"]
    floor = Proxy("floor", command, Path(directory) / f"floor-{port}.log", **options)
    floor.wait_port(port)
    floor.port, floor.worker = port, floor.pid
    return floor


LOG = '[[access_logs]]\nto = "file:@DIR@/access.log"\nformat = "{}"\n'


def start_traced(directory, origin_port, routes=0, **options):
    """Ringway that records one exchange of a hundred, and a collector that takes everything."""
    port = free_port()
    collector = Path(directory) / f"collector-{port}"
    collector.mkdir()
    start_origin(collector, port, body=0)
    return start_ringway(directory, origin_port, routes, **options, extra=(
        f'[tracing]\nendpoint = "http://127.0.0.1:{port}/v1/traces"\nsample = 0.01\n'))


START = {
    "floor": start_floor,
    "nginx": start_nginx,
    "nginx-fields": functools.partial(start_nginx, fields=FIELDS),
    "ringway": start_ringway,
    "nginx-log": functools.partial(
        start_nginx, extra="access_log @DIR@/access.log combined buffer=64k flush=1s;\n"),
    "ringway-plain": functools.partial(start_ringway, extra="[metrics]\nenabled = false"),
    "ringway-log": functools.partial(start_ringway, extra=LOG.format("combined")),
    "ringway-json": functools.partial(start_ringway, extra=LOG.format("json")),
    "ringway-trace": start_traced,
}


def start_origin(directory, port, body=1024, **options):
    """The cheap origin of the load generator."""
    command = [LOADTEST, "origin", "--listen", f"127.0.0.1:{port}", "--body", body]
    return Process("origin", command, Path(directory) / "origin.log", **options).wait_port(port)


def cpu(pid):
    """CPU time of a process: nanoseconds over its threads, and user and system ticks."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return {"cpu_ns": total, "user_ticks": int(fields[11]), "system_ticks": int(fields[12])}


def rss_kib(pid):
    """Resident memory of a process in KiB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def descriptors(pid):
    """Open descriptors of a process."""
    return len(os.listdir(f"/proc/{pid}/fd"))


def machine():
    """What the figures were measured on, as text."""
    model = re.search(r"model name\s*:\s*(.*)", Path("/proc/cpuinfo").read_text())
    revision = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    version = subprocess.run(["nginx", "-v"], capture_output=True, text=True).stderr.strip()
    return (f"{model[1] if model else 'unknown CPU'}, {os.cpu_count()} CPUs, "
            f"Linux {os.uname().release}, {version.removeprefix('nginx version: ')}, "
            f"Ringway {revision.stdout.strip()}")
