"""How load is made: loadtest's own generator, and wrk.

The own generator is client and origin on one thread and one io_uring, never asleep, so that the
proxy does not pay for waking it. wrk sleeps, and needs an origin beside it.
"""

import json
import subprocess

import peers


class Failed(Exception):
    """A generator that did not do its work, with what it said."""


class Generator:
    """Loads one proxy at a time; `core` is where it runs.

    A round ends with its generator, and its origin: the next round's finds the proxy's upstream
    connections closed, and warms them up again.
    """

    def __init__(self, case, connections, core, realtime, directory):
        self.case, self.connections, self.core = case, connections, core
        self.realtime, self.directory = realtime, directory
        self.origin_port = peers.free_port()
        # Where the client must share its core with a worker, it may not spin.
        self.spin = True
        # Thousands of connections take a while to open.
        self.warmup_s = 1.0 + connections / 5000

    def pinned(self, command):
        prefix = ["chrt", "-r", "1"] if self.realtime else []
        return [*prefix, "taskset", "-c", str(self.core), *map(str, command)]

    def run(self, command):
        """Runs a generator and returns what it prints."""
        done = subprocess.run(self.pinned(command), capture_output=True, text=True)
        if done.returncode:
            words = " ".join(map(str, command))
            raise Failed(f"{words} ended with {done.returncode}: {done.stderr.strip()[-500:]}")
        return done.stdout

    def command(self, proxy, seconds, routes=0, rate=0.0, origin=True, warmup=None):
        """The own generator's command line."""
        case = self.case
        warmup = self.warmup_s if warmup is None else warmup
        line = [peers.LOADTEST, "load", "--target", f"127.0.0.1:{proxy.port}",
                "--body", case.body, "--connections", self.connections,
                "--duration", seconds, "--warmup", warmup, "--json", "-"]
        line += ["--spin"] if self.spin else []
        line += [word for pid in proxy.workers for word in ("--watch", pid)]
        if origin:
            line += ["--origin", f"127.0.0.1:{self.origin_port}", "--origin-body", case.body]
        line += ["--path", "/svc/{n}/item", "--spread", routes] if routes else []
        line += ["--post", case.post] if case.post else []
        line += ["--new-connections"] if case.new else []
        return line + (["--rate", rate] if rate else [])

    def own(self, proxy, seconds, **options):
        """One round of the own generator."""
        report = json.loads(self.run(self.command(proxy, seconds, **options)))
        load = report["load"]
        failures = {kind: n for kind, n in load["failures"].items() if n}
        # Of no answer at all there is no latency.
        latency = percentiles(load["latency_us"]) if load["succeeded"] else {}
        return {"requests": load["succeeded"], "window_s": load["window_s"],
                "errors": sum(failures.values()), "failures": failures,
                "cpu": added(report["watched"]), **latency,
                "load_us": report["own_cpu_us_per_request"],
                "load_busy": report["own_busy_share"],
                "backlog": load.get("backlog"), "hdr": load.get("latency_hdr_v2_base64")}

    def wrk(self, proxy, seconds, **options):
        """One round of wrk, with an origin of its own."""
        assert not options.get("routes"), "wrk would run Lua for every request"
        command = ["wrk", "-t1", f"-c{self.connections}", "-s", peers.PEERS / "wrk.lua",
                   f"http://127.0.0.1:{proxy.port}/"]
        origin = peers.start_origin(self.directory, self.origin_port, self.case.body,
                                    core=self.core, realtime=self.realtime)
        try:
            self.run([*command, "-d1s"])
            before = [peers.cpu(pid) for pid in proxy.workers]
            text = self.run([*command, f"-d{max(1, round(seconds))}s"])
            after = [peers.cpu(pid) for pid in proxy.workers]
        finally:
            origin.stop()
        result = json.loads(text.strip().splitlines()[-1])
        used = [{key: a[key] - b[key] for key in a} for a, b in zip(after, before)]
        failures = {kind: n for kind, n in result["errors"].items() if n}
        return {"requests": result["requests"], "window_s": result["duration_us"] / 1e6,
                "errors": sum(failures.values()), "failures": failures, "cpu": added(used),
                **percentiles(result)}


def added(readings):
    """CPU time of several processes as one."""
    return {key: sum(reading[key] for reading in readings) for key in readings[0]}


def percentiles(latency):
    """Those that the generator gave, in microseconds."""
    return {key: latency[key] for key in ("p50", "p90", "p99", "p999", "p9999", "max", "mean")
            if key in latency}
