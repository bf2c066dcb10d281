"""Every case as data: what the generator asks for, what the origin answers, what differs in the
proxies' configurations, and how long it takes.

A new case is an entry here; what its `kind` means is in measure.py and others.py. Kinds are those
that `loadtest report` has tables for.
"""

from dataclasses import dataclass

# Seconds of a round besides what is measured: warm-up, calibration, start of the generator.
ROUND_EXTRA_S = 1.2
# Seconds to count system calls of one proxy.
COUNT_S = 6.0
# Shares of the best peer's maximum at which latency is measured.
LOADS = (0.10, 0.50, 0.80)


@dataclass(frozen=True)
class Case:
    name: str
    title: str
    about: str
    kind: str = "load"
    # Bytes of the response, of the request where it is a POST.
    body: int = 1024
    post: int = 0
    connections: int = 64
    # A new connection for each request.
    new: bool = False
    # Clients speak TLS 1.3, with the same key exchange and cipher to every proxy.
    tls: bool = False
    # New connections resume the session of the last one.
    resume: bool = False
    # Requests in flight on each connection of HTTP/2; 0 is HTTP/1.1.
    streams: int = 0
    # Route counts, each a variant of every proxy; 0 is the one route for `/`.
    routes: tuple = (0,)
    log: bool = False
    # Requests per second of an open loop, messages per second of held WebSockets.
    rate: float = 0.0
    # What a cost is given per.
    unit: str = "request"
    # Milliseconds that one of four origins waits; 0 is a single origin.
    slow_ms: int = 0
    # Worker counts, each a variant.
    workers: tuple = (1,)
    # Whether peak memory is a point of the plot of memory against connections.
    memory: bool = False
    # Whether system calls are counted, also in the short set.
    counts: bool = False
    # Sets it belongs to.
    short: bool = False
    full: bool = True
    # Generators other than loadtest's own that may be asked for.
    generators: tuple = ("own",)
    # Proxies measured besides those of a set, where two ways to tune one are worth knowing.
    also: tuple = ()
    # Proxies that do not take part, and why.
    without: tuple = ()
    # Its rounds last so many times as long as those of others.
    stretch: float = 1.0
    # Seconds per proxy of cases that are not rounds of load.
    seconds_each: float = 0.0

    def proxies(self, chosen):
        """Those asked for, and in a set those that this case adds beside one of them."""
        kinds = {name.partition("-")[0] for name in chosen.proxies}
        more = [name for name in self.also if name.partition("-")[0] in kinds
                and name not in chosen.proxies and chosen.set != "chosen"]
        return [*chosen.proxies, *more]

    def seconds(self, chosen):
        """About how long it takes, without building."""
        count = len([p for p in self.proxies(chosen) if not self.left_out(p)])
        if self.seconds_each:
            return count * self.seconds_each
        variants = len(self.routes) * len(self.workers)
        if self.kind == "latency" and not self.rate:
            variants = len(LOADS)
        generators = len([g for g in self.generators if g in chosen.generators])
        round_s = chosen.seconds * self.stretch + ROUND_EXTRA_S
        rounds = count * variants * generators * chosen.rounds * round_s
        counted = count * variants * COUNT_S if self.counted(chosen) else 0
        return rounds + counted + 4 * count

    def counted(self, chosen):
        """Whether system calls are counted in this run. Opening thousands of connections would be
        a good part of them."""
        return (self.kind == "load" and self.connections <= 1000
                and (self.counts or chosen.set != "short"))

    def left_out(self, proxy):
        """Why a proxy takes no part, or nothing."""
        return next((why for name, why in self.without if proxy.startswith(name)), "")


NO_HTTP = "it forwards bytes to one place, one upstream connection for each client connection"
OPENS = "(The floor opens an upstream connection for each of the client's, which no gateway does.)"
BYTES_ONLY = "it forwards bytes and speaks no TLS"
TLS = ("TLS 1.3 to the client, X25519, AES-128-GCM, an ECDSA P-256 certificate, HTTP/1.1 in clear to "
       "the origin, which is a process of its own on the generator's core.")
NO_RELOAD = "scripts/reload-load knows how to reload NGINX and Ringway only"

CASES = {case.name: case for case in (
    Case("1k", "64 connections, 1 KiB", "GET on 64 kept connections, response of 1 KiB.",
         memory=True, counts=True, short=True, generators=("own", "wrk")),
    Case("1000c", "1,000 connections, 1 KiB", "GET on 1,000 kept connections, response of 1 KiB.",
         connections=1000, memory=True, short=True),
    Case("10000c", "10,000 connections, 1 KiB",
         "GET on 10,000 kept connections, response of 1 KiB, or on as many as the system's limit of "
         "descriptors allows (two for each in every proxy).",
         connections=10_000, memory=True),
    Case("0b", "no body", "GET on 64 kept connections, response without a body.", body=0,
         generators=("own", "wrk")),
    Case("64k", "64 KiB response",
         "GET on 64 kept connections, response of 64 KiB. NGINX and HAProxy have buffers for the "
         "whole of it; nginx-8k has those that small responses go through.",
         body=65536, short=True, generators=("own", "wrk"), also=("nginx-8k",)),
    Case("1m", "1 MiB response",
         "GET on 64 kept connections, response of 1 MiB. NGINX passes pieces of up to 512 KiB on as "
         "they come, nginx-8k goes through the buffers of small responses; HAProxy splices, "
         "haproxy-copy does not.",
         body=1 << 20, short=True, also=("nginx-8k", "haproxy-copy")),
    Case("post16k", "POST 16 KiB", "POST of 16 KiB on 64 kept connections, response of 1 KiB.",
         post=16384, short=True),
    Case("new", "new connection per request",
         f"GET on a new connection each, 64 at a time; upstream connections are kept. {OPENS}",
         new=True, short=True),
    Case("1000-routes", "1,000 routes",
         "GET on 64 kept connections through 10 and through 1,000 routes, every one in turn.",
         routes=(10, 1000), short=True),
    Case("routes", "10,000 routes",
         "GET on 64 kept connections through 10 and through 10,000 routes, every one in turn.",
         routes=(10, 10_000), full=False),
    Case("log", "access log on",
         "As 64 connections, 1 KiB, with one line per request in a file: NGINX's combined format "
         "in all. NGINX, Envoy and Ringway write in blocks, HAProxy a line at a time to its "
         "standard output, which is a file.",
         log=True, short=True),
    Case("tls", "TLS, kept connections", f"GET on 64 kept connections, response of 1 KiB. {TLS}",
         tls=True, counts=True, short=True, generators=("own", "wrk"),
         without=(("floor", BYTES_ONLY),)),
    Case("tls-full", "TLS, full handshakes",
         f"GET on a new connection each, 64 at a time, none of which resumes a session. {TLS}",
         tls=True, new=True, short=True, without=(("floor", BYTES_ONLY),)),
    Case("tls-resumed", "TLS, resumed handshakes",
         "GET on a new connection each, 64 at a time, each of which resumes the session of the last "
         f"one by its ticket. {TLS}",
         tls=True, new=True, resume=True, short=True, without=(("floor", BYTES_ONLY),)),
    Case("tls-1m", "1 MiB over TLS", f"GET on 64 kept connections, response of 1 MiB. {TLS}",
         body=1 << 20, tls=True, short=True, generators=("own", "wrk"), also=("nginx-8k",),
         without=(("floor", BYTES_ONLY),)),
    # A proxy that does not offer h2 fails its rounds, which are noted.
    Case("h2", "HTTP/2 over TLS, 8 connections",
         f"GET on 8 kept connections with 32 streams each, response of 1 KiB. {TLS}",
         tls=True, connections=8, streams=32, short=True, without=(("floor", BYTES_ONLY),)),
    Case("latency", "latency, open loop",
         "GET at a constant rate on at most 64 kept connections, response of 1 KiB, at 10, 50 and "
         "80 % of the highest rate that a peer (neither Ringway nor the floor) reached in a closed "
         "loop just before.",
         kind="latency", stretch=2.0, short=True),
    Case("slow", "one slow upstream of four",
         "GET at 4,000 requests/s over four origins of which one takes 50 ms for each answer. The "
         "proxy chooses the origin with the fewest requests in flight (NGINX least_conn, HAProxy "
         "leastconn, Envoy LEAST_REQUEST, Ringway least_request).",
         kind="latency", rate=4000, slow_ms=50, without=(("floor", NO_HTTP),)),
    Case("websocket", "WebSocket echo",
         "1,000 WebSockets, 10,000 messages/s of 64 bytes in all, each of which comes back from the "
         "origin. Messages leave when they are due, whatever the proxy does.",
         kind="hold", connections=1000, rate=10_000, unit="message"),
    Case("workers", "workers, 1 to all cores",
         "As 64 connections, 1 KiB, with one worker and with one for each core.",
         kind="workers", workers=(1, 0), without=(("floor", "it has one thread"),)),
    Case("idle", "idle connections",
         "Memory of the serving process per kept connection, after one request on each and 8 s "
         "without any.",
         kind="idle", short=True, seconds_each=30, without=(("floor", NO_HTTP),)),
    Case("reload", "reload under load",
         "A hundred reloads in a minute at 5,000 requests/s with 500 WebSockets and 50 slow "
         "downloads open (scripts/reload-load), beside a quiet minute.",
         kind="reload", seconds_each=150,
         without=(("floor", "it has no configuration"), ("haproxy", NO_RELOAD),
                  ("envoy", NO_RELOAD))),
)}

# Cases of the issue whose feature Ringway does not have. Each comes with its feature.
NOT_BUILT = (
    "rate limit on", "JWT on", "cache hit",
)


def of_set(name):
    """Names of the cases of the short or the full set."""
    return [case.name for case in CASES.values() if getattr(case, name)]
