"""What is counted before Triton is told: durations by bounds, and lines that are not written too often."""

import os
from itertools import pairwise
from pathlib import Path

from serving.runtime.counters import BOUNDS_S, Complaints, Durations, resident_bytes


def test_durations_are_counted_up_to_each_bound_itself_included():
    durations = Durations()
    assert durations.cumulative() == [0] * (len(BOUNDS_S) + 1)
    for seconds in (0.0005, 0.001, 0.0011, 0.25, 60.0):
        durations.observe(seconds)
    found = dict(zip((*BOUNDS_S, float("inf")), durations.cumulative(), strict=True))
    assert (found[0.001], found[0.002], found[0.15], found[0.25], found[10.0], found[float("inf")]) == (
        2,
        3,
        3,
        4,
        4,
        5,
    )
    assert abs(durations.total_s - 60.2526) < 1e-9
    assert all(low < high for low, high in pairwise(BOUNDS_S))


def test_complaints_come_at_most_so_often_and_say_how_many_there_were():
    lines = []
    seldom = Complaints(lines.append, every_s=3600)
    for number in range(5):
        seldom(f"line {number}")
    assert lines == ["line 0"]
    often = Complaints(lines.append, every_s=0)
    often("a")
    often("b")
    assert lines[1:] == ["a", "b"]
    seldom._next = 0.0  # an hour later
    seldom("line 5")
    assert lines[-1] == "line 5 (and 4 more before it)"


def test_memory_is_what_the_system_says():
    held = bytearray(os.urandom(1)) * (64 << 20)
    status = Path("/proc/self/status").read_text()
    resident = int(status.split("VmRSS:")[1].split()[0]) * 1024
    assert abs(resident_bytes() - resident) < 16 << 20
    assert resident_bytes() > len(held)
