"""Tests of instruction_record: python3 -m unittest discover -s scripts -p '*_test.py'"""

import tomllib
import unittest

from instruction_record import Figure, figures, judge, renewed, text, unexplained

HERE, THERE = "rustc 1 on this", "rustc 2 on that"


def figure(name="a", instructions=1000, reason="because", measured_on=HERE):
    return Figure(name, instructions, "2026-11-21", reason, measured_on)


def record(*list_of):
    return {figure.name: figure for figure in list_of}


class Judging(unittest.TestCase):
    def test_verdicts(self):
        for case, recorded, measured, skipped, expected in [
            ("the same", record(figure()), {"a": 1000}, (), "same"),
            ("at the bound", record(figure()), {"a": 1030}, (), "same"),
            ("above it", record(figure()), {"a": 1031}, (), "MORE"),
            ("a fraction above it", record(figure()), {"a": 1030.1}, (), "MORE"),
            ("less", record(figure()), {"a": 900}, (), "less"),
            ("a case nobody recorded", {}, {"a": 1}, (), "NEW"),
            ("a case that went away", record(figure()), {}, (), "GONE"),
            ("more elsewhere", record(figure(measured_on=THERE)), {"a": 2000}, (), "elsewhere"),
        ]:
            with self.subTest(case):
                words = [verdict.word for verdict in judge(recorded, measured, HERE, skipped)]
                self.assertEqual(words, [expected])
        self.assertEqual(judge(record(figure("request")), {}, HERE, ("request",)), [])

    def test_the_text_has_both_figures_and_their_ratio(self):
        (verdict,) = judge(record(figure(instructions=10_000)), {"a": 11_000.4}, HERE)
        self.assertEqual(verdict.text, "recorded 10,000, now 11,000, ratio 1.100")


class Reasons(unittest.TestCase):
    def test_a_changed_figure_needs_another_reason(self):
        before = record(figure())
        for case, after, expected in [
            ("nothing changed", record(figure()), []),
            ("more, explained", record(figure(instructions=2000, reason="a field more")), []),
            ("more, not explained", record(figure(instructions=2000)), ["a"]),
            ("less, not explained", record(figure(instructions=999)), ["a"]),
            ("blanks are no reason", record(figure(instructions=1, reason="because ")), ["a"]),
            ("only the reason", record(figure(reason="in other words")), []),
            ("one more case", record(figure(), figure("b")), []),
            ("a case less", {}, []),
        ]:
            with self.subTest(case):
                self.assertEqual(unexplained(before, after), expected)

    def test_recording_touches_what_moved(self):
        before = record(figure("a"), figure("b"), figure("gone"), figure("there", 1, "x", THERE),
                        figure("request"))
        after = renewed(before, {"a": 1005, "b": 1011, "new": 7.4, "there": 1}, HERE, "faster",
                        "2026-12-01", ("request",))
        self.assertEqual(
            [(f.name, f.instructions, f.reason, f.date) for f in after.values()],
            [("a", 1000, "because", "2026-11-21"), ("b", 1011, "faster", "2026-12-01"),
             ("new", 7, "faster", "2026-12-01"), ("request", 1000, "because", "2026-11-21"),
             ("there", 1, "faster", "2026-12-01")])


class Files(unittest.TestCase):
    def test_what_is_written_is_read(self):
        written = record(figure("a", 7, 'a "quoted" reason\\'), figure("b"))
        self.assertEqual(figures(tomllib.loads(text(written))), written)

    def test_what_is_no_record(self):
        good = {"name": "a", "instructions": 1, "date": "d", "reason": "r", "measured_on": "m"}
        self.assertEqual(len(figures({"figure": [good]})), 1)
        for case, entries in [
            ("without reason", [{**good, "reason": " "}]),
            ("without a key", [{k: v for k, v in good.items() if k != "date"}]),
            ("with an unknown key", [{**good, "noise": 1}]),
            ("no number", [{**good, "instructions": "1"}]),
            ("zero", [{**good, "instructions": 0}]),
            ("twice", [good, good]),
        ]:
            with self.subTest(case), self.assertRaises(ValueError):
                figures({"figure": entries})


if __name__ == "__main__":
    unittest.main()
