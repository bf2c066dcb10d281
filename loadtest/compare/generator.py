"""How load is made: loadtest's own generator, its holder of WebSockets, and wrk.

The own generator is client and origin on one thread and one io_uring, never asleep, so that the
proxy does not pay for waking it. wrk sleeps, and needs an origin beside it; so does the own generator
where it speaks TLS. Both are told which key exchange and cipher to offer, so that no proxy can choose
a cheaper one.
"""

import json
import os
import subprocess
import time

import peers


GROUP, CIPHER = "x25519", "aes-128-gcm"
# The same for what uses OpenSSL.
OPENSSL = """
openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = default
[default]
MinProtocol = TLSv1.3
Groups = X25519
Ciphersuites = TLS_AES_128_GCM_SHA256
"""


class Failed(Exception):
    """A generator that did not do its work, with what it said."""


class Generator:
    """Loads one proxy at a time, from one core or, with a thread each, from several.

    A round ends with its generator, and its origin: the next round's finds the proxy's upstream
    connections closed, and warms them up again.
    """

    def __init__(self, case, connections, cores, realtime, directory):
        self.case, self.connections, self.cores = case, connections, cores
        self.realtime, self.directory = realtime, directory
        self.origin_port = peers.free_port()
        # Where the client must share its core with a worker, it may not spin.
        self.spin = not case.tls
        # Thousands of connections take a while to open.
        self.warmup_s = 0.7 + connections / 5000

    def pinned(self, command):
        prefix = ["chrt", "-r", "1"] if self.realtime else []
        return [*prefix, "taskset", "-c", ",".join(map(str, self.cores)), *map(str, command)]

    def run(self, command):
        """Runs a generator and returns what it prints."""
        config = self.directory / "openssl.cnf"
        config.write_text(OPENSSL)
        done = subprocess.run(self.pinned(command), capture_output=True, text=True,
                              env={**os.environ, "OPENSSL_CONF": str(config)})
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
        if len(self.cores) > 1:
            line += ["--threads", len(self.cores), "--pin", ",".join(map(str, self.cores))]
        line += [word for pid in proxy.workers for word in ("--watch", pid)]
        if case.tls:
            line += ["--tls", "--ca", proxy.ca, "--tls-version", "1.3", "--tls-group", GROUP,
                     "--tls-cipher", CIPHER, "--resume", "on" if case.resume else "off"]
        line += ["--http2", "--streams", case.streams] if case.streams else []
        if origin and not case.tls:
            line += ["--origin", f"127.0.0.1:{self.origin_port}", "--origin-body", case.body]
        line += ["--path", "/svc/{n}/item", "--spread", routes] if routes else []
        line += ["--post", case.post] if case.post else []
        line += ["--new-connections"] if case.new else []
        return line + (["--rate", rate] if rate else [])

    def own(self, proxy, seconds, **options):
        """One round of the own generator."""
        report = json.loads(self.run(self.command(proxy, seconds, **options)))
        load = report["load"]
        self.check_handshakes(report)
        failures = {kind: n for kind, n in load["failures"].items() if n}
        # Of no answer at all there is no latency.
        latency = percentiles(load["latency_us"]) if load["succeeded"] else {}
        return {"requests": load["succeeded"], "window_s": load["window_s"],
                "errors": sum(failures.values()), "failures": failures,
                "cpu": added(report["watched"]), **latency,
                "load_us": report["own_cpu_us_per_request"],
                "load_busy": report["own_busy_share"],
                "backlog": report.get("backlog", {}).get("max"),
                "unsent": report.get("backlog", {}).get("unsent"),
                "send_lag_p99": load.get("send_lag_us", {}).get("p99"),
                "hdr": load["latency_hdr_v2_base64"]}

    def check_handshakes(self, report):
        """Where each request has a handshake, all are of the kind that is measured."""
        if not (self.case.tls and self.case.new):
            return
        other = "full" if self.case.resume else "resumed"
        if report["tls"][other] > 0.01 * report["load"]["succeeded"]:
            raise Failed(f"{report['tls'][other]} handshakes were {other}")

    def hold(self, proxy, seconds):
        """One round of WebSockets, each of which sends a message now and then and wants it back.

        The proxy's CPU time is read over a time in the middle, when all are open; messages are
        sent at their times whatever the proxy does.
        """
        every_s = self.connections / self.case.rate
        open_s = 1.0 + self.connections / 2000
        process = subprocess.Popen(self.pinned(
            [peers.LOADTEST, "hold", "--target", f"127.0.0.1:{proxy.port}", "--path", "/ws",
             "--websocket", self.connections, "--echo-every", f"{round(every_s * 1000)}ms",
             "--duration", seconds + 2, "--json", "-"]),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        time.sleep(open_s)
        before, begun = [peers.cpu(pid) for pid in proxy.workers], time.monotonic()
        time.sleep(seconds)
        after, window_s = [peers.cpu(pid) for pid in proxy.workers], time.monotonic() - begun
        output, said = process.communicate()
        if process.returncode:
            raise Failed(f"loadtest hold ended with {process.returncode}: {said.strip()[-500:]}")
        report = json.loads(output)
        held = report["websocket"]
        failures = dict(held["failures"]) | {"wrong": held["wrong"]}
        failures = {kind: n for kind, n in failures.items() if n}
        # All are sent evenly, so that the window has its share of those that came back.
        share = held["received"] / max(held["sent"], 1)
        return {"requests": round(self.case.rate * window_s * share), "window_s": window_s,
                "rate": self.case.rate, "errors": sum(failures.values()), "failures": failures,
                "cpu": added([difference(a, b) for a, b in zip(after, before)]),
                **percentiles(held["time_us"])}

    def wrk(self, proxy, seconds, **options):
        """One round of wrk, with an origin of its own."""
        assert not options.get("routes"), "wrk would run Lua for every request"
        scheme = "https" if self.case.tls else "http"
        command = ["wrk", "-t1", f"-c{self.connections}", "-s", peers.PEERS / "wrk.lua",
                   f"{scheme}://127.0.0.1:{proxy.port}/"]
        # With TLS there is one for the whole case.
        origin = None if self.case.tls else peers.start_origin(self.directory, self.origin_port, self.case.body,
                                    core=self.cores[0], realtime=self.realtime)
        try:
            self.run([*command, "-d1s"])
            before = [peers.cpu(pid) for pid in proxy.workers]
            text = self.run([*command, f"-d{max(1, round(seconds))}s"])
            after = [peers.cpu(pid) for pid in proxy.workers]
        finally:
            if origin:
                origin.stop()
        result = json.loads(text.strip().splitlines()[-1])
        used = [difference(a, b) for a, b in zip(after, before)]
        failures = {kind: n for kind, n in result["errors"].items() if n}
        return {"requests": result["requests"], "window_s": result["duration_us"] / 1e6,
                "errors": sum(failures.values()), "failures": failures, "cpu": added(used),
                **percentiles(result)}


def difference(after, before):
    """CPU time used between two readings of one process."""
    return {key: after[key] - before[key] for key in after}


def added(readings):
    """CPU time of several processes as one."""
    return {key: sum(reading[key] for reading in readings) for key in readings[0]}


def percentiles(latency):
    """Those that the generator gave, in microseconds."""
    return {key: latency[key] for key in ("p50", "p90", "p99", "p999", "p9999", "max", "mean")
            if key in latency}
