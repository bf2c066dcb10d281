"""The file of raw data, which `loadtest report` reads: everything of a run, every round of it.

Its form is described in README.md beside this file.
"""

import json
import os
import platform
import time

import rivals

from . import cases, measure

SCHEMA = "ringway-compare/1"


def now():
    return time.strftime("%Y-%m-%d %H:%M:%S %z")


def begin(chosen, command):
    """The file before the first case."""
    return {
        "schema": SCHEMA, "begun": now(), "ended": now(), "command": command, "set": chosen.set,
        "machine": measure.machine(), "versions": versions(chosen),
        "settings": {"rounds": chosen.rounds, "seconds": chosen.seconds,
                     "realtime": chosen.realtime, "proxy_cores": str(chosen.proxy_core),
                     "load_cores": str(chosen.load_core)},
        "missing": [], "not_built": list(cases.NOT_BUILT), "cases": []}


def versions(chosen):
    """Of every proxy, and of what measures."""
    found = []
    for name in chosen.proxies:
        program = getattr(rivals.peers.START[name], "keywords", {}).get("program")
        found.append([name, rivals.version(rivals.kind(name), program)])
    if "wrk" in chosen.generators:
        found.append(["wrk", rivals.first_line(["wrk", "-v"]).split(" [")[0]])
    found.append(["compiler", rivals.first_line(["rustc", "--version"])])
    return found + [["Python", platform.python_version()]]


def missing(raw):
    """What was to be counted and could not be."""
    rows = [row for case in raw["cases"] for row in case["rows"] if "calls" in row]
    found = []
    if rows and all(row["instructions"] is None for row in rows):
        found.append("user instructions per request: perf has no counter of instructions here "
                     "(scripts/instructions counts Ringway's with valgrind)")
    if rows and all(row["calls"] is None for row in rows):
        found.append("system calls per request: neither perf nor strace may be used here")
    return found


def write(raw, file):
    """Writes it as a whole, so that no reader sees half of it."""
    raw["ended"], raw["missing"] = now(), missing(raw)
    half = file.with_name(file.name + ".part")
    half.write_text(json.dumps(raw, indent=1) + "\n")
    os.replace(half, file)
