"""Jobs that wait are answered together, each once, whatever happens to the others."""

import queue
import threading
import time

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


@pytest.mark.parametrize("error", [SystemExit("a library wants to end"), KeyboardInterrupt(), MemoryError("no more")])
def test_no_error_ends_the_thread(error):
    def answer(works):
        if "bad" in works:
            raise error
        return [work.upper() for work in works]

    batcher, results, came = Batcher(answer, len, 100, 100), [], threading.Event()
    batcher.submit("bad", lambda result: (results.append(result), came.set()))
    assert came.wait(10)
    assert isinstance(results[0], Exception)
    assert type(error).__name__ in repr(results[0])
    came.clear()
    batcher.submit("good", lambda result: (results.append(result), came.set()))
    assert came.wait(10)
    assert results[1] == "GOOD"
    batcher.close()


def test_a_reply_that_raises_is_given_its_error_and_costs_the_others_nothing(capsys):
    first = []

    def reply(result):
        first.append(result)
        raise SystemExit("the client's tensor cannot be made")

    gate, second = Gate(), []
    batcher = Batcher(gate, lambda work: 1, 4, 100)
    batcher.submit(1, lambda result: None)
    assert gate.entered.wait(10)
    batcher.submit(2, reply)
    batcher.submit(3, second.append)
    gate.open.set()
    batcher.close()
    assert first[0] == 4
    assert str(first[1]) == "the reply failed: SystemExit"
    assert len(first) == 2
    assert second == [9]
    assert "the client's tensor cannot be made" in capsys.readouterr().err


def test_as_many_results_as_jobs_or_an_error():
    results = []
    batcher = Batcher(lambda works: [], lambda work: 1, 4, 100)
    batcher.submit(1, results.append)
    batcher.close()
    assert [str(result) for result in results] == ["1 jobs have 0 results"]


def test_nobody_waits_for_a_batcher_that_has_ended():
    gate, results = Gate(), {}
    batcher = Batcher(gate, lambda work: 1, 4, 100)
    batcher.submit(1, lambda result: results.update(one=result))
    assert gate.entered.wait(10)
    closing = threading.Thread(target=batcher.close)
    closing.start()
    while not batcher.waiting:  # until the end stands in the queue
        time.sleep(0.01)
    batcher.submit(2, lambda result: results.update(two=result))
    assert batcher.waiting == 2
    gate.open.set()
    closing.join(10)
    assert results["one"] == 1
    assert str(results["two"]) == "the batcher has ended"
    batcher.submit(3, lambda result: results.update(three=result))
    assert str(results["three"]) == "the batcher has ended"
    assert batcher.waiting == 0


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


def test_answers_go_out_side_by_side_while_the_next_batch_is_computed():
    gate, meeting, results = Gate(), threading.Barrier(3), []

    def reply(result):
        # Passes when another reply of its batch and an answer to the next batch have come this far too.
        meeting.wait(10)
        results.append(result)

    def answer(works):
        if works == [4]:
            meeting.wait(10)
        return gate(works)

    batcher = Batcher(answer, lambda work: 1, 2, 100)
    batcher.submit(1, results.append)
    assert gate.entered.wait(10)
    for work in (2, 3):
        batcher.submit(work, reply)
    batcher.submit(4, results.append)
    gate.open.set()
    batcher.close()
    assert sorted(results) == [1, 4, 9, 16]
