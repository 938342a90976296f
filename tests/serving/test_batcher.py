"""Jobs that wait are answered together, each once, whatever happens to the others."""

import queue
import threading

import pytest

from serving.runtime.batcher import Batcher


class Gate:
    """Answers a batch of numbers with their squares, once it is opened; remembers the batches."""

    def __init__(self, bad=()):
        self.open, self.entered, self.batches, self.bad = threading.Event(), threading.Event(), [], bad

    def __call__(self, works):
        self.entered.set()
        assert self.open.wait(10)
        self.batches.append(list(works))
        if set(works) & set(self.bad):
            raise ValueError(f"{works} holds a bad one")
        return [work**2 for work in works]


def collect(gate, works, *, size=lambda work: 1, max_size=4, max_waiting=100):
    """The first job is under way while the others come."""
    batcher, results = Batcher(gate, size, max_size, max_waiting), {}
    batcher.submit(works[0], lambda result: results.update({works[0]: result}))
    assert gate.entered.wait(10)
    for work in works[1:]:
        batcher.submit(work, lambda result, work=work: results.update({work: result}))
    gate.open.set()
    batcher.close()
    return results


def test_what_waits_is_answered_together():
    gate = Gate()
    assert collect(gate, [1, 2, 3, 4, 5, 6, 7]) == {n: n**2 for n in range(1, 8)}
    assert gate.batches == [[1], [2, 3, 4, 5], [6, 7]]


def test_a_batch_holds_at_most_so_much_and_a_large_job_goes_alone():
    gate = Gate()
    collect(gate, [1, 2, 2.5, 9, 3], size=int, max_size=5)
    assert gate.batches == [[1], [2, 2.5], [9], [3]]


def test_a_bad_job_does_not_spoil_the_others():
    gate = Gate(bad=[3])
    results = collect(gate, [1, 2, 3, 4])
    assert {n: r for n, r in results.items() if n != 3} == {1: 1, 2: 4, 4: 16}
    assert isinstance(results[3], ValueError)
    assert gate.batches == [[1], [2, 3, 4], [2], [3], [4]]


def test_too_many_waiting_jobs_are_refused_at_once():
    gate = Gate()
    with pytest.raises(queue.Full):
        collect(gate, [1, 2, 3, 4], max_waiting=2)
    gate.open.set()


def test_thousands_of_jobs_from_many_threads():
    lock, results = threading.Lock(), {}

    def reply(work, result):
        with lock:
            assert work not in results
            results[work] = result

    batcher = Batcher(lambda works: [-work for work in works], lambda work: 1, 32, 10_000)
    threads = [
        threading.Thread(
            target=lambda start=start: [
                batcher.submit(n, lambda result, n=n: reply(n, result)) for n in range(start, 4000, 8)
            ]
        )
        for start in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    batcher.close()
    assert results == {n: -n for n in range(4000)}
