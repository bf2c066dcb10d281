"""Starts, pins and stops what the measuring scripts compare: Ringway, NGINX, an origin.

Imported by the scripts beside it; needs Python 3.9 and nothing else. Every process started here
is stopped when the script ends, however it ends.
"""

import atexit
import functools
import os
import re
import resource
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
    "haproxy": "haproxy",
    "redis-server": "redis-server",
    "wrk": "wrk",
    "h2load": "nghttp2-client",
    "strace": "strace",
    "valgrind": "valgrind",
    "cc": "gcc",
    "perf": "linux-perf",
    "curl": "curl",
    "openssl": "openssl",
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
    install(packages)
    if any(not shutil.which(tool) for tool in missing):
        sys.exit(f"missing tools; install them: apt-get install {' '.join(packages)}")


def install(packages):
    """Installs Debian packages when root; elsewhere does nothing."""
    if not packages or os.geteuid() != 0 or not shutil.which("apt-get"):
        return
    say(f"installing {' '.join(packages)}")
    # The services of freshly installed proxies must not start: only ours are measured.
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    try:
        subprocess.run(["apt-get", "update"], check=False, **quiet)
        subprocess.run(
            ["apt-get", "install", "-y", "--no-install-recommends", *packages], check=False,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"}, **quiet)
    finally:
        if ours:
            policy.unlink()


@functools.lru_cache
def file_limit():
    """How many descriptors a process may have, for this one and those it starts; asks for 65,536."""
    wanted = 65_536
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    hard = wanted if hard == resource.RLIM_INFINITY else hard
    if hard < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
            return wanted
        except (ValueError, OSError):
            # Only the administrator may go beyond the hard limit, and in a container not even he.
            pass
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


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
    """A proxy in front of its origins. `workers` are the processes that serve, `worker` the first."""

    worker = 0
    workers = ()
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


# Bodies above this get what is meant for large ones: no buffering, splice.
BULK_BYTES = 65536
# NGINX's buffers for one response, the usual ones. Larger ones cost the cache more than they save.
USUAL_BUFFERS = "proxy_buffering on; proxy_buffer_size 4k; proxy_buffers 16 8k;"


def buffers(body):
    """NGINX's buffers by the largest body: those that cost least of some that were tried."""
    if body <= 16384:
        return USUAL_BUFFERS
    if body <= BULK_BYTES:
        return ("proxy_buffering on; proxy_buffer_size 80k; proxy_buffers 4 80k; "
                "proxy_busy_buffers_size 160k;")
    return ("proxy_buffering off; proxy_buffer_size 512k; proxy_buffers 4 512k; "
            "proxy_busy_buffers_size 1024k;")


def ports(origin):
    """The ports of one origin, or of several."""
    return list(origin) if isinstance(origin, (list, tuple)) else [origin]


def nginx_tls(authority):
    """Key exchange and cipher as the generators offer them; sessions resumed by tickets."""
    file = authority.folder / "proxy"
    return (f"ssl_certificate {file}.pem; ssl_certificate_key {file}.key; "
            "ssl_protocols TLSv1.2 TLSv1.3; ssl_ecdh_curve X25519; "
            "ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256; "
            "ssl_session_cache shared:tls:10m; ssl_session_tickets on;")


def start_nginx(directory, origin, routes=0, extra="", fields="", log=False, workers=1,
                connections=64, body=1024, least=False, buffering="", tls=None, h2=False,
                program="nginx", **options):
    """NGINX with the tuned configuration, in front of an origin.

    `log` writes an access log, `body` is the largest body in bytes, `connections` how many clients
    there are, `least` chooses the origin with the least requests in flight, `buffering` replaces
    the buffers that fit `body`, `fields` and `extra` are put in as they are. With `tls`, an
    authority that has issued a certificate `proxy`, clients speak TLS, and HTTP/2 with `h2`.
    """
    directory = Path(directory) / f"nginx-{free_port()}"
    directory.mkdir()
    port = free_port()
    locations = "".join(
        f"        location /svc/{n}/ {{ proxy_pass http://origin; }}\n" for n in range(routes))
    extra += "access_log @DIR@/access.log combined buffer=64k flush=1s;\n" if log else ""
    config = directory / "nginx.conf"
    config.write_text(fill("nginx.conf.in", {
        "LISTEN": f"127.0.0.1:{port}{' ssl' if tls else ''}{' http2' if h2 else ''}",
        "TLS": nginx_tls(tls) if tls else "", "WORKERS": workers, "KEEPALIVE": max(512, 2 * connections),
        "FILES": file_limit(),
        "SERVERS": " ".join(f"server 127.0.0.1:{p};" for p in ports(origin)),
        "BALANCE": "least_conn;" if least else "", "BUFFERS": buffering or buffers(body),
        "DIR": directory, "FIELDS": fields,
        "ROUTES": locations + extra.replace("@DIR@", str(directory))}))
    command = [program, "-c", config, "-p", directory, "-e", directory / "error.log"]
    nginx = Proxy("nginx", command, directory / "log", **options).wait_port(port)
    nginx.port, nginx.workers = port, nginx.children()
    nginx.worker = nginx.workers[0]
    return nginx


def start_ringway(directory, origin, routes=0, workers=1, io="auto", extra="", log=False,
                  connections=64, body=1024, least=False, tls=None, h2=False, program=RINGWAY,
                  **options):
    """Ringway with one upstream and `routes` routes besides `/`; see `start_nginx`.

    `body` changes nothing here: its buffers grow with the body by themselves. Nor does `h2`: where
    there is TLS it is offered, and the client chooses.
    """
    directory = Path(directory) / f"ringway-{free_port()}"
    directory.mkdir()
    port = free_port()
    tables = "".join(
        f'\n[[routes]]\npath = "/svc/{n}"\nupstream = "origin"\n' for n in range(routes))
    extra += LOG.format("combined") if log else ""
    if connections >= 10_000:
        extra += "[limits]\nconnections_per_worker = 20000\n"
    config = directory / "ringway.toml"
    config.write_text(fill("ringway.toml.in", {
        "LISTEN": f"127.0.0.1:{port}", "WORKERS": workers, "IO": io, "ROUTES": tables,
        "TLS": RINGWAY_TLS.format(tls.folder / "proxy") if tls else "",
        "SERVERS": ", ".join(f'"127.0.0.1:{p}"' for p in ports(origin)),
        "BALANCE": 'balance = "least_request"' if least else "",
        "EXTRA": extra.replace("@DIR@", str(directory))}))
    ringway = Proxy("ringway", [program, "run", config], directory / "log", **options)
    # Slow when it runs under valgrind.
    ringway.wait_log("ready", 120).wait_port(port)
    ringway.port, ringway.worker, ringway.workers = port, ringway.pid, [ringway.pid]
    return ringway


def start_floor(directory, origin, routes=0, connections=64, body=1024, **options):
    """No proxy at all but a forwarder of bytes: the least that a proxy here can cost."""
    port = free_port()
    # Large bodies in pieces as Ringway's relay buffers have them.
    buffer = 8192 if body <= 8192 else 65536 if body <= BULK_BYTES else 262144
    command = [LOADTEST, "forward", "--listen", f"127.0.0.1:{port}",
               "--to", f"127.0.0.1:{ports(origin)[0]}", "--buffer", buffer]
    floor = Proxy("floor", command, Path(directory) / f"floor-{port}.log", **options)
    floor.wait_port(port)
    floor.port, floor.worker, floor.workers = port, floor.pid, [floor.pid]
    return floor


RINGWAY_TLS = 'tls = {{ certificates = [{{ file = "{0}.pem", key = "{0}.key" }}] }}'
LOG = '[[access_logs]]\nto = "file:@DIR@/access.log"\nformat = "{}"\n'


def start_traced(directory, origin, routes=0, **options):
    """Ringway that records one exchange of a hundred, and a collector that takes everything."""
    port = free_port()
    collector = Path(directory) / f"collector-{port}"
    collector.mkdir()
    start_origin(collector, port, body=0)
    return start_ringway(directory, origin, routes, **options, extra=(
        f'[tracing]\nendpoint = "http://127.0.0.1:{port}/v1/traces"\nsample = 0.01\n'))


START = {
    "floor": start_floor,
    "nginx": start_nginx,
    "nginx-fields": functools.partial(start_nginx, fields=FIELDS),
    "nginx-8k": functools.partial(start_nginx, buffering=USUAL_BUFFERS),
    "ringway": start_ringway,
    "nginx-log": functools.partial(start_nginx, log=True),
    "ringway-plain": functools.partial(start_ringway, extra="[metrics]\nenabled = false"),
    "ringway-log": functools.partial(start_ringway, log=True),
    "ringway-json": functools.partial(start_ringway, extra=LOG.format("json")),
    "ringway-trace": start_traced,
}


def start_origin(directory, port, body=1024, ways=(), **options):
    """The cheap origin of the load generator; `ways` are further flags of `loadtest origin`."""
    command = [LOADTEST, "origin", "--listen", f"127.0.0.1:{port}", "--body", body, *ways]
    log = Path(directory) / f"origin-{port}.log"
    return Process("origin", command, log, **options).wait_port(port)


def cpu(pid):
    """CPU time of a process: nanoseconds over its threads, and user and system ticks."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return {"cpu_ns": total, "user_ticks": int(fields[11]), "system_ticks": int(fields[12])}


def rss_kib(pid, field="VmRSS"):
    """Resident memory of a process in KiB; VmHWM is the most there was."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
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
