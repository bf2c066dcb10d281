"""One round of load on one proxy, and what it takes to know that the figures are the proxy's.

Around each round the machine is asked how fast it is (fixed work on the proxy's core), what else
ran on that core, and what the hypervisor took. System calls and instructions are counted in a
round of their own, because counting slows the proxy down.
"""

import hashlib
import json
import os
import re
import subprocess
import time
from pathlib import Path

import peers

BLOCK = bytes(1 << 20)


def core_ticks(cores):
    """(busy, stolen) ticks of some cores since boot; stolen is what the hypervisor took."""
    busy = stolen = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name in {f"cpu{core}" for core in cores}:
            user, nice, system, _, _, irq, softirq, steal = map(int, fields[:8])
            busy += user + nice + system + irq + softirq
            stolen += steal
    return busy, stolen


def speed_ms(core, tries=5):
    """Milliseconds of CPU time that fixed work takes on a core: the shortest of a few tries."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        times = []
        for _ in range(tries):
            begun = time.process_time_ns()
            digest = hashlib.sha256()
            for _ in range(8):
                digest.update(BLOCK)
            times.append((time.process_time_ns() - begun) / 1e6)
        return min(times)
    finally:
        os.sched_setaffinity(0, allowed)


def forget_peak(pid):
    """Lets VmHWM count from now on; whether the kernel allowed it."""
    try:
        Path(f"/proc/{pid}/clear_refs").write_text("5")
        return True
    except OSError:
        return False


def peak_kib(pids):
    """The most memory that the processes had since `forget_peak`, each at its own time."""
    return sum(peers.rss_kib(pid, "VmHWM") for pid in pids)


def round_of(generator, kind, proxy, cores, seconds, **options):
    """One measured round, as figures per request. `kind` is a method of the generator."""
    for pid in proxy.workers:
        forget_peak(pid)
    speed_before = speed_ms(cores[0])
    busy, stolen = core_ticks(cores)
    used, begun = cpu_ns(proxy), time.monotonic()
    raw = getattr(generator, kind)(proxy, seconds, **options)
    busy_after, stolen_after = core_ticks(cores)
    used, wall = cpu_ns(proxy) - used, (time.monotonic() - begun) * len(cores)
    cpu = raw.pop("cpu")
    figures = raw | per_request(cpu, raw["requests"]) | {
        "rps": raw["requests"] / raw["window_s"],
        "share": cpu["cpu_ns"] / 1e9 / raw["window_s"],
        # Other work on the proxy's cores, from this script too: should be next to nothing.
        "foreign": max(0.0, (busy_after - busy) / 100 - used / 1e9) / wall,
        "stolen": (stolen_after - stolen) / 100 / wall,
        "peak_kib": peak_kib(proxy.workers),
        "speed_before_ms": speed_before,
        "speed_after_ms": speed_ms(cores[0]),
    }
    return {key: value for key, value in figures.items() if value is not None}


def per_request(cpu, requests):
    """CPU time per request, in all, user and system; nothing when no request was answered."""
    if not requests:
        return {}
    ticks = max(cpu["user_ticks"] + cpu["system_ticks"], 1)
    us = cpu["cpu_ns"] / 1e3 / requests
    return {"cpu_us": us, "user_us": us * cpu["user_ticks"] / ticks,
            "system_us": us * cpu["system_ticks"] / ticks}


def cpu_ns(proxy):
    return sum(peers.cpu(pid)["cpu_ns"] for pid in proxy.workers)


def counts(generator, proxy, **options):
    """(system calls, user instructions) per request at saturation; None where not to be had."""
    events = "raw_syscalls:sys_enter,instructions:u"
    found = perf(generator, proxy, events, **options)
    calls = found.get("raw_syscalls:sys_enter")
    if calls is None:
        calls = calls_by_strace(generator, proxy, **options)
    return calls, found.get("instructions:u")


def perf(generator, proxy, events, **options):
    """What perf counts of some events while load is made, per request.

    From the first request to the last, so that both counts are of the same time; opening the
    connections is among it.
    """
    load = generator.pinned(generator.command(proxy, 4, warmup=0, **options))
    pids = ",".join(map(str, proxy.workers))
    try:
        done = subprocess.run(["perf", "stat", "-x,", "-e", events, "-p", pids, *load],
                              capture_output=True, text=True)
        load = json.loads(done.stdout)["load"]
    except (OSError, ValueError, KeyError):
        return {}
    answered = load["succeeded"] + load["late"]
    fields = [line.split(",") for line in done.stderr.splitlines()]
    return {field[2]: int(field[0]) / answered
            for field in fields if answered and len(field) > 2 and field[0].isdigit()}


def calls_by_strace(generator, proxy, **options):
    """System calls per request by strace, which slows the proxy down a lot."""
    pids = [word for pid in proxy.workers for word in ("-p", str(pid))]
    try:
        trace = subprocess.Popen(["strace", "-c", "-f", *pids], stderr=subprocess.PIPE, text=True)
    except OSError:
        return None
    time.sleep(0.5)
    report = json.loads(generator.run(generator.command(proxy, 3, warmup=0, **options)))
    trace.terminate()
    total = re.search(r"^\s*100\.00\s+\S+\s+\S*\s+(\d+).* total$", trace.communicate()[1], re.M)
    done = report["load"]["succeeded"] + report["load"]["late"]
    return int(total[1]) / done if total and done else None


def machine():
    """Facts of this machine, in the order in which they are shown."""
    text = Path("/proc/cpuinfo").read_text()
    model = re.search(r"model name\s*:\s*(.*)", text)
    memory = re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())
    system = re.search(r'PRETTY_NAME="(.*)"', Path("/etc/os-release").read_text())
    bugs = Path("/sys/devices/system/cpu/vulnerabilities")
    mitigated = sorted(f.name for f in bugs.iterdir() if "Mitigation" in f.read_text()) \
        if bugs.is_dir() else []
    return [
        ["processor", model[1].strip() if model else os.uname().machine],
        ["cores", str(os.cpu_count())],
        ["hypervisor", "yes" if re.search(r"^flags.*\bhypervisor\b", text, re.M) else "no"],
        ["memory", f"{int(memory[1]) / 1048576:.1f} GiB" if memory else "unknown"],
        ["kernel", f"{os.uname().sysname} {os.uname().release} {os.uname().machine}"],
        ["system", system[1] if system else "unknown"],
        ["mitigations in force", ", ".join(mitigated) or "none"],
        ["descriptors per process", f"{peers.file_limit():,}"],
    ]
