"""What is done for each kind of case: closed loops, open loops, workers, idle connections, reloads.

Rounds are interleaved (NGINX, HAProxy, ..., Ringway, Ringway, ..., NGINX, ...), so that a slower
minute of the machine hits all. A proxy that does not start and a round that fails are said in the result; nothing
is left out silently.
"""

import dataclasses
import json
import os
import subprocess
import time

import certificates
import idle_connections
import peers

from . import cases, measure
from .generator import Failed, Generator

# Neither of these is what others' maximum is taken from.
NOT_PEERS = ("ringway", "floor")
ROUNDING = 100
NGINX_WEBSOCKET = """
        location /ws {
            proxy_pass http://origin;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection upgrade;
            proxy_set_header Host $http_host;
            proxy_read_timeout 5m;
        }
"""


class Bench:
    """One case being measured: its proxies, its rows, and what is said beside them."""

    def __init__(self, chosen, case):
        self.chosen, self.case = chosen, case
        self.directory = peers.workspace()
        self.connections = case.connections
        self.rows, self.notes, self.skipped, self.started = {}, [], [], []
        allowed = (peers.file_limit() - 500) // 2
        if self.connections > allowed:
            self.connections = allowed // 100 * 100
            self.notes.append(f"{self.connections:,} connections, because a process may have "
                              f"{peers.file_limit():,} descriptors here")
        self.generator = self.make_generator([chosen.load_core])
        self.authority = self.issue() if case.tls else None

    def issue(self):
        """An authority, and the certificate that every proxy has."""
        authority = certificates.Authority(self.directory / "certificates")
        authority.issue("proxy")
        return authority

    def make_generator(self, cores):
        return Generator(self.case, self.connections, cores, self.chosen.realtime, self.directory)

    def start_origin(self, port, ways=()):
        """An origin of its own beside the generator."""
        return peers.start_origin(self.directory, port, self.case.body, ways,
                                  core=self.chosen.load_core, realtime=self.chosen.realtime)

    def taking_part(self):
        """Names of the proxies of this case; the others are noted."""
        names = []
        for name in self.case.proxies(self.chosen):
            why = self.case.left_out(name)
            if why:
                self.skipped.append([name, why])
            else:
                names.append(name)
        return names

    def start(self, name, origin=None, core=None, **variant):
        """Starts a proxy; None, with a note, when it does not."""
        try:
            proxy = peers.START[name](
                self.directory, origin or self.generator.origin_port,
                core=self.chosen.proxy_core if core is None else core,
                realtime=self.chosen.realtime, **self.options(name, variant))
        except SystemExit as failed:
            self.skipped.append([name, f"it did not start: {' '.join(str(failed).split())}"])
            return None
        proxy.ca = self.authority and self.authority.ca
        self.started.append(proxy)
        return proxy

    def options(self, name, variant):
        """What the configuration of a proxy depends on."""
        body = max(self.case.body, self.case.post)
        options = {"connections": self.connections, "body": body} | variant
        if self.authority:
            options |= {"tls": self.authority, "h2": bool(self.case.streams)}
        # NGINX switches protocols only where it is told to.
        if self.case.kind == "hold" and name.startswith("nginx"):
            options["extra"] = NGINX_WEBSOCKET
        # The floor writes no log whatever is asked.
        return options | ({"log": True} if self.case.log and name != "floor" else {})

    def round(self, number, key, generator, kind, proxy, cores=None, extra=None, **options):
        """Measures one round and keeps it under `key`: proxy, variant, generator."""
        row = self.rows.setdefault(key, {"rounds": []})
        seconds = self.chosen.seconds * self.case.stretch
        try:
            figures = measure.round_of(generator, kind, proxy, cores or [self.chosen.proxy_core],
                                       seconds, **options)
        except (Failed, OSError) as failed:
            self.notes.append(f"a round of {' '.join(key).strip()} failed: {failed}")
        else:
            row["rounds"].append({"round": number + 1} | figures | (extra or {}))

    @staticmethod
    def turn(number, several):
        """The order of a round: every other one is the other way round, so that none always runs
        after the same one."""
        return several[::-1] if number % 2 else several

    def say(self, number, *words):
        peers.say(f"{self.case.name}: round {number + 1}/{self.chosen.rounds} "
                  f"{' '.join(word for word in words if word)}")

    def result(self):
        """The case as it is written; ends its proxies."""
        for proxy in self.started:
            proxy.stop()
        case = self.case
        # Where every round failed there is nothing to show; the notes say so.
        rows = [{"proxy": proxy, "variant": variant, "generator": generator, **row}
                for (proxy, variant, generator), row in self.rows.items() if row["rounds"]]
        return {"name": case.name, "title": case.title, "about": case.about, "kind": case.kind,
                "unit": case.unit, "connections": self.connections if case.memory else None, "notes": self.notes,
                "skipped": self.skipped, "rows": rows}


def load(chosen, case):
    """Closed loop: as many requests as the proxy answers."""
    bench = Bench(chosen, case)
    names, variants = bench.taking_part(), []
    origin = bench.start_origin(bench.generator.origin_port) if case.tls else None
    for routes in case.routes:
        for name in names:
            proxy = bench.start(name, routes=routes)
            if proxy:
                variants.append((name, f"{routes:,} routes" if routes else "", routes, proxy))
    generators = [name for name in case.generators if name in chosen.generators]
    for number in range(chosen.rounds):
        for name, variant, routes, proxy in bench.turn(number, variants):
            for kind in generators:
                bench.say(number, name, variant, kind)
                bench.round(number, (name, variant, kind), bench.generator, kind, proxy,
                            routes=routes)
    if case.counted(chosen):
        for name, variant, routes, proxy in variants:
            peers.say(f"{case.name}: counting calls of {name} {variant}")
            row = bench.rows[name, variant, generators[0]]
            row["calls"], row["instructions"] = measure.counts(
                bench.generator, proxy, routes=routes)
    if origin:
        origin.stop()
    strip(bench)
    return bench.result()


def strip(bench):
    """Takes histograms out: of closed loops they are of no use, and large."""
    for row in bench.rows.values():
        for figures in row["rounds"]:
            figures.pop("hdr", None)


def maximum(bench, proxies):
    """The highest rate of a peer in a closed loop, and a note of it."""
    best, rate = None, 0.0
    for name, proxy in proxies:
        if name.partition("-")[0] in NOT_PEERS:
            continue
        peers.say(f"{bench.case.name}: maximum of {name}")
        try:
            found = bench.generator.own(proxy, bench.chosen.seconds)
        except Failed as failed:
            bench.notes.append(f"the maximum of {name} could not be measured: {failed}")
            continue
        if found["requests"] / found["window_s"] > rate:
            best, rate = name, found["requests"] / found["window_s"]
    if best:
        bench.notes.append(f"the best peer's maximum was {best}'s {rate:,.0f} requests/s")
    return rate


def latency(chosen, case):
    """Open loop: requests leave when they are due, whatever the proxy does."""
    if case.slow_ms:
        return slow(chosen, case)
    bench = Bench(chosen, case)
    proxies = [(name, bench.start(name)) for name in bench.taking_part()]
    proxies = [(name, proxy) for name, proxy in proxies if proxy]
    most = maximum(bench, proxies)
    if not most:
        bench.notes.append("no peer took part, so there is no rate to measure at")
    loads = cases.LOADS if most else ()
    for number in range(chosen.rounds):
        for share in loads:
            rate = max(ROUNDING, round(most * share / ROUNDING) * ROUNDING)
            for name, proxy in bench.turn(number, proxies):
                bench.say(number, name, f"at {share:.0%}")
                bench.round(number, (name, f"{share * 100:.0f} % of the best peer's maximum", "own"),
                            bench.generator, "own", proxy, extra={"rate": rate}, rate=rate)
    return bench.result()


def slow(chosen, case):
    """Open loop over four origins, of which one is slow."""
    bench = Bench(chosen, case)
    ports = [peers.free_port() for _ in range(4)]
    waits = [[], [], [], ["--delay", f"{case.slow_ms}ms"]]
    origins = [bench.start_origin(port, ways) for port, ways in zip(ports, waits)]
    # The origins need the core that a spinning client would keep.
    bench.generator.spin = False
    proxies = [(name, bench.start(name, origin=ports, least=True)) for name in bench.taking_part()]
    for number in range(chosen.rounds):
        for name, proxy in bench.turn(number, proxies):
            if proxy:
                bench.say(number, name)
                bench.round(number, (name, f"{case.rate:,.0f} requests/s", "own"), bench.generator, "own",
                            proxy, extra={"rate": case.rate}, rate=case.rate, origin=False)
    for origin in origins:
        origin.stop()
    return bench.result()


def hold(chosen, case):
    """WebSockets that echo at a constant rate."""
    bench = Bench(chosen, case)
    origin = bench.start_origin(bench.generator.origin_port, ["--websocket"])
    proxies = [(name, bench.start(name)) for name in bench.taking_part()]
    for number in range(chosen.rounds):
        for name, proxy in bench.turn(number, proxies):
            if proxy:
                bench.say(number, name)
                bench.round(number, (name, "", "own"), bench.generator, "hold", proxy)
    origin.stop()
    return bench.result()


def workers(chosen, case):
    """Closed loop with one worker and with as many as there are cores for."""
    bench = Bench(chosen, case)
    cores = os.cpu_count()
    # With four cores and more, half of them are the load's; below, all do everything.
    shared = cores < 4
    most = cores if shared else cores // 2
    load_cores = [chosen.load_core] if shared else list(range(most, cores))
    bench.generator = bench.make_generator(load_cores)
    bench.generator.spin = not shared
    if shared:
        bench.notes.append(
            f"this machine has {cores} cores: with {most} workers the load shares a core with one of "
            "them, so that the figures say that it works and not how it scales")
    variants = []
    names = bench.taking_part()
    for count in sorted({count or most for count in case.workers}):
        used = list(range(count)) if count > 1 else [chosen.proxy_core]
        for name in names:
            proxy = bench.start(name, core=",".join(map(str, used)), workers=count)
            if proxy:
                variants.append((name, count, used, proxy))
    for number in range(chosen.rounds):
        for name, count, used, proxy in bench.turn(number, variants):
            variant = f"{count} worker{'s' if count > 1 else ''}"
            bench.say(number, name, variant)
            bench.round(number, (name, variant, "own"), bench.generator, "own", proxy, cores=used,
                        extra={"workers": count})
    strip(bench)
    return bench.result()


def idle(chosen, case):
    """Memory of the serving process per idle connection."""
    count = min(5000, peers.file_limit() // 2 - 500)
    bench = Bench(chosen, dataclasses.replace(case, connections=count))
    origin = bench.start_origin(bench.generator.origin_port)
    for name in bench.taking_part():
        peers.say(f"{case.name}: {count} connections to {name}")
        proxy = bench.start(name)
        if not proxy:
            continue
        try:
            figures = idle_connections.measure(proxy, count)
        except (SystemExit, OSError) as failed:
            bench.skipped.append([name, str(failed)])
        else:
            bench.rows[name, "", ""] = {"rounds": [figures]}
        proxy.stop()
    origin.stop()
    bench.notes.append("One round each: what is measured is a difference of memory, not a time.")
    return bench.result()


def reload(chosen, case):
    """scripts/reload-load, whose figures these are."""
    bench = Bench(chosen, case)
    names = bench.taking_part()
    file = bench.directory / "reload.json"
    seconds = case.seconds_each * 0.4
    # On all cores, unlike this script.
    command = ["taskset", "-c", f"0-{os.cpu_count() - 1}",
               peers.ROOT / "scripts" / "reload-load", "--no-build", "--proxies", ",".join(names),
               "--seconds", seconds, "--json", file]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True) if names else None
    if not file.exists():
        error = done.stderr.strip()[-500:] if done else "no proxy takes part"
        bench.notes.append(f"scripts/reload-load gave no figures: {error}")
        return bench.result()
    for name, found in json.loads(file.read_text()).items():
        bench.rows[name, "", ""] = {"rounds": [reload_figures(found)]}
    return bench.result()


def reload_figures(found):
    quiet, loud = found["quiet"], found["reloading"]

    def lost(phase):
        return sum(phase[kind]["lost"] + phase[kind]["failures"]["refused"]
                   + phase[kind]["failures"]["connect"] for kind in ("kept", "new"))

    return {"lost_quiet": lost(quiet), "lost_reloading": lost(loud),
            "idle_closed": loud["kept"]["idle_closed"],
            "websockets_closed": found["websockets_closed"],
            "downloads_cut": found["downloads_closed"],
            "p99_quiet": quiet["kept"]["latency_us"]["p99"],
            "p99_reloading": loud["kept"]["latency_us"]["p99"],
            "peak_quiet_kib": quiet["peak_kib"], "peak_reloading_kib": loud["peak_kib"],
            "processes": loud["processes"]}


KINDS = {"load": load, "latency": latency, "hold": hold, "workers": workers, "idle": idle, "reload": reload}


def run(chosen, name):
    """Measures one case; how long that took is part of the result."""
    case, begun = cases.CASES[name], time.monotonic()
    found = KINDS[case.kind](chosen, case)
    return found | {"took_s": round(time.monotonic() - begun, 1)}
