"""What is recorded in benches/instructions.toml, and what follows from it. Pure: no file, no process.

A figure is one `[[figure]]`: `name`, `instructions` (of one run), `date`, `reason` (why it is what it
is), and `measured_on` (compiler, processor features, C library, valgrind), without which two
figures cannot be compared.
"""

from collections import namedtuple

Figure = namedtuple("Figure", "name instructions date reason measured_on")
Verdict = namedtuple("Verdict", "name word text")

# A figure may exceed the recorded one by this share. From one run to the next it moves by less
# than a fifth of it.
GROWTH_MAX = 0.03
# --record leaves figures alone that moved by less.
NOISE = 0.01

# Words of verdicts; those in FAILED fail the gate.
SAME, LESS, MORE, NEW, GONE, ELSEWHERE = "same", "less", "MORE", "NEW", "GONE", "elsewhere"
FAILED = (MORE, NEW, GONE)


def figures(table):
    """The figures of a parsed file, by name. Raises ValueError when it is not a record."""
    found = {}
    for entry in table.get("figure", []):
        try:
            figure = Figure(**entry)
        except TypeError as error:
            raise ValueError(f"figure {entry.get('name', '?')}: {error}") from None
        if figure.name in found:
            raise ValueError(f"figure {figure.name} is there twice")
        if not (isinstance(figure.instructions, int) and figure.instructions > 0):
            raise ValueError(f"figure {figure.name}: instructions must be a positive number")
        if not figure.reason.strip():
            raise ValueError(f"figure {figure.name}: the reason is empty")
        found[figure.name] = figure
    return found


def judge(recorded, measured, measured_on, skipped=()):
    """A verdict for each name of either. `measured` has numbers; names that begin with one of
    `skipped` could not be measured."""
    verdicts = []
    for name in sorted(recorded.keys() | measured.keys()):
        figure, now = recorded.get(name), measured.get(name)
        if now is None:
            if not any(name.startswith(begin) for begin in skipped):
                verdicts.append(Verdict(name, GONE, "recorded, but there is no such case"))
        elif figure is None:
            verdicts.append(Verdict(name, NEW, f"now {now:,.0f}, not recorded"))
        else:
            verdicts.append(compare(figure, now, measured_on))
    return verdicts


def compare(figure, now, measured_on):
    ratio = now / figure.instructions
    text = f"recorded {figure.instructions:,}, now {now:,.0f}, ratio {ratio:.3f}"
    if figure.measured_on != measured_on:
        return Verdict(figure.name, ELSEWHERE, f"{text}; recorded on {figure.measured_on}")
    if ratio > 1 + GROWTH_MAX:
        return Verdict(figure.name, MORE, text)
    return Verdict(figure.name, LESS if ratio < 1 - GROWTH_MAX else SAME, text)


def unexplained(before, after):
    """Names whose figure was changed, but not the reason why it is what it is."""
    return sorted(
        name for name, figure in after.items()
        if name in before and figure.instructions != before[name].instructions
        and figure.reason.strip() == before[name].reason.strip())


def renewed(recorded, measured, measured_on, reason, date, skipped=()):
    """The record after recording anew: what did not move keeps its date and reason."""
    after = {}
    for name in sorted(recorded.keys() | measured.keys()):
        figure, now = recorded.get(name), measured.get(name)
        is_skipped = any(name.startswith(begin) for begin in skipped)
        if now is None:
            if is_skipped:
                after[name] = figure
            continue
        moved = figure is None or abs(now / figure.instructions - 1) > NOISE
        if moved or figure.measured_on != measured_on:
            after[name] = Figure(name, round(now), date, reason, measured_on)
        else:
            after[name] = figure
    return after


HEAD = """\
# Instructions of one run of each case of benches/steps, and of one request through the gateway.
# Written by `scripts/instruction-gate --record "reason"`, which compares them in scripts/check.
# A figure that changes needs a reason that changes, in the same commit.
"""


def text(record):
    """The file of a record."""
    def quoted(value):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    parts = [HEAD]
    for figure in record.values():
        parts.append(
            f"\n[[figure]]\nname = {quoted(figure.name)}\n"
            f"instructions = {figure.instructions}\ndate = {quoted(figure.date)}\n"
            f"reason = {quoted(figure.reason)}\nmeasured_on = {quoted(figure.measured_on)}\n")
    return "".join(parts)
