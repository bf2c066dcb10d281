"""Runs the gateway under callgrind and reads what that counted.

Imported by scripts/instructions and scripts/instruction-gate. Only the worker's thread counts:
control's threads work by the clock, not by the request.
"""

import json
import re
import subprocess
from collections import Counter, namedtuple

import peers

# Tools that building and running for callgrind needs.
TOOLS = ("valgrind", "cc")
# Beside the other builds, because of the feature below.
TARGET = peers.ROOT / "target" / "valgrind"
# A function that runs once for each answer of the gateway's own, and for no forwarded request.
MARKER = "ringway::worker::respond::problem"

Built = namedtuple("Built", "gateway steps yielding")


def build(directory):
    """Builds the gateway, the benchmarks and what is preloaded. Answers their paths.

    One call of cargo for both programs, so that what they share is built once. The feature keeps
    rustix from looking for the vDSO, which valgrind hides.
    """
    command = ["cargo", "build", "--release", "--quiet", "-p", "ringway", "--bin", "ringway",
               "--bench", "steps", "--features", "rustix/use-libc-auxv", "--message-format=json",
               "--target-dir", TARGET]
    done = subprocess.run(command, cwd=peers.ROOT, check=True, stdout=subprocess.PIPE, text=True)
    programs = {}
    for line in done.stdout.splitlines():
        message = json.loads(line)
        if message.get("executable"):
            programs[message["target"]["name"]] = message["executable"]
    yielding = directory / "valgrind_yield.so"
    source = peers.ROOT / "scripts" / "valgrind_yield.c"
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", yielding, source, "-ldl"], check=True)
    return Built(programs["ringway"], programs["steps"], yielding)


def wrap(built, out, *options):
    """What comes before the gateway's command; files of counts begin with the path `out`."""
    # Fairness: otherwise a thread that polls starves the worker.
    return ["env", f"LD_PRELOAD={built.yielding}", "valgrind", "--tool=callgrind",
            "--fair-sched=yes", "--separate-threads=yes", f"--callgrind-out-file={out}", *options]


def worker(out):
    """What the worker's thread cost, of the files beginning with the path `out`: instructions by
    source file and function. Much is inlined, so that a function has code of many files."""
    costs = [read(file) for file in out.parent.glob(f"{out.name}-*")]
    if not costs:
        raise SystemExit(f"{out}: callgrind counted nothing; is {MARKER} inlined or renamed?")
    of_worker = [cost for cost in costs if any("::worker::h1::" in name for _, name in cost)]
    if len(of_worker) != 1:
        raise SystemExit(f"{out}: {len(of_worker)} of {len(costs)} threads look like the worker's")
    return of_worker[0]


def read(path):
    """Instructions by source file and function, as in callgrind's format version 1."""
    names, cost = {}, Counter()
    file = function = None
    is_call = False
    # A name is written out where it comes first, and later only its number.
    spec = re.compile(r"^(fl|fi|fe|fn|cfi|cfl|cfn)=\((\d+)\)(?: (.*))?$")
    with open(path, errors="replace") as lines:
        for line in lines:
            if line[0].isdigit() or line[0] in "+-*":
                # The line after a call has what was spent in the callee.
                if not is_call:
                    cost[file, function] += int(line.split()[1])
                is_call = False
            elif line.startswith("calls="):
                is_call = True
            elif found := spec.match(line):
                kind, number, name = found.groups()
                key = ("fn" if kind.endswith("fn") else "file", number)
                if name is not None:
                    names[key] = name
                if kind == "fn":
                    function = names[key]
                elif kind in ("fl", "fi", "fe"):
                    file = names[key]
    return Counter({key: count for key, count in cost.items() if count})


# What an exchange does, each with what names of the functions or paths of the sources contain. The
# first that fits has it; a function that was inlined counts by its source file.
GROUPS = [
    ("runtime (monoio, io-uring)", r"monoio|io-uring|io_uring|__rust_begin_short_backtrace"),
    ("heads: start line, host", r"(Request|Response)Head|wire/(request|response|method)|httparse|"
                                r"wire(::|/)authority|from_utf8"),
    ("heads: field lines", r"wire::(section|field)|wire/(section|words|field|head|scan|grammar)"),
    ("admit, path, client address", r"policy(::|/)(admit|client)|wire(::|/)(path|forwarded)"),
    ("route", r"policy(::|/)route"),
    ("request head: rewrite", r"forward::request|forward/request|policy(::|/)rewrite"),
    ("response head: rewrite", r"h1(::|/)sink"),
    ("heads: writing lines", r"wire(::|/)emit|itoa"),
    ("request id", r"request_id"),
    ("endpoint, pool", r"policy(::|/)balance|worker(::|/)(pool|forward(::|/)connect)"),
    ("metrics, record, logs", r"telemetry(::|/)(metrics|record|access_log)|worker(::|/)(logs|slowest)"),
    ("tracing", r"telemetry(::|/)trace|worker(::|/)trace"),
    ("clock", r"clock_gettime|sys/pal/unix/time|Timespec|worker(::|/)clock|rustix.*time"),
    ("buffers, bodies", r"worker(::|/)(buffers|body)|h1(::|/)body"),
    ("deadlines", r"worker(::|/)deadline"),
    ("sockets", r"worker(::|/)net"),
    ("tasks: h1, pipeline, forward", r"worker(::|/)"),
    ("allocator", r"mimalloc|\bmi_|_mi_|malloc|free$|alloc.c"),
    ("copies, comparisons (libc)", r"mem(cpy|move|cmp|set|chr)|sysdeps/.*mem"),
    ("system calls (libc)", r"syscall|valgrind_yield|sched_yield"),
]


def group(file, function):
    """The group that the code of `file` within `function` belongs to."""
    # Code of the standard library, and of small crates, is part of whatever it was inlined into.
    is_inlined = re.search(r"/library/|/rustc/", file) or not re.search(
        r"/src/(wire|policy|telemetry|config|worker)/|monoio|io-uring", file)
    places = [function, file] if is_inlined else [file, function]
    for place in places:
        for name, pattern in GROUPS:
            if re.search(pattern, place):
                return name
    return "other"


def grouped(cost):
    """Instructions by group."""
    groups = Counter()
    for (file, function), count in cost.items():
        groups[group(file, function)] += count
    return groups
