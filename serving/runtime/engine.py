"""Raw events in, recommendations out: the compiled workflow and the TorchScript model in one process.

Knows nothing of Triton, so that `nextitem export --verify`, tests and benchmarks run what the server runs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from common.artefacts import sha256
from serving.runtime import CHECKSUMS, SETTINGS, WEIGHTS
from serving.runtime.columns import RequestError, check_sizes
from serving.runtime.devices import load_where_it_answers
from serving.runtime.options import Limits, Options, read_options
from serving.runtime.program import RequestProgram, Sessions
from serving.runtime.remote import PlainRanker, ask_triton

Array = NDArray[Any]
# JSON has no infinity: a place that no item could fill gets the lowest number there is.
_LOWEST = np.finfo(np.float32).min
# Scores of one pass of the model: 64 million numbers are 256 MiB.
_SCORES = 64_000_000


@dataclass
class Request:
    """A request whose size and options were found right.

    Attributes
    ----------
    raw : mapping of str to array [N]
        Its events.
    options : Options
        What is asked for.
    sessions, events : int
        How many there are.
    """

    raw: Mapping[str, Array]
    options: Options
    sessions: int
    events: int

    def __len__(self) -> int:
        return self.sessions


class Engine:
    """What answers requests.

    Parameters
    ----------
    folder : Path or str
        A version of the exported model: program, arrays, TorchScript, settings, and the checksums of all.
    warn : callable
        Told, in one line, what a person who runs the server should know.
    device : {"auto", "cpu", "cuda"}, optional
        Where the model runs; by default what the settings say.
    ranker : callable, optional
        Takes the place of the Triton model that ranks, for an export whose model is in one of its own.

    Raises
    ------
    ValueError
        When a file is not what was exported.
    """

    def __init__(
        self,
        folder: Path | str,
        warn: Callable[[str], None] = print,
        device: str | None = None,
        ranker: PlainRanker | None = None,
    ) -> None:
        folder = Path(folder)
        _verify(folder)
        settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        self.limits = Limits(**settings["limits"])
        self.program = RequestProgram.load(folder)
        self.items = self.program.items
        self.max_batch_size: int = settings["max_batch_size"]
        self.max_waiting: int = settings["max_waiting"]
        self._rows = max(1, min(self.max_batch_size, _SCORES // max(1, len(self.items))))
        torch.set_num_threads(settings["threads"])
        self._model: Any

        def answers(model: Any, device: str) -> None:
            self._model, self._device = model, device
            self.warm_up()

        if settings.get("ranker"):
            # That model warms itself up: Triton lets nobody ask another model before this one is loaded.
            self._model = ranker or PlainRanker(ask_triton(settings["ranker"], int(folder.name)))
            self._device = "cpu"
            return
        load_where_it_answers(folder / WEIGHTS, device or settings["device"], answers, warn)

    def warm_up(self) -> None:
        """Answer a few batches: TorchScript compiles itself for one session and for several during the first."""
        one = self.read(self.program.example())
        for requests in (1, 3, 1, 8, 1, 5):
            self.answer([one] * requests)

    def read(self, raw: Mapping[str, Array]) -> Request:
        """Check the size of a request and its options.

        Parameters
        ----------
        raw : mapping of str to array
            Columns of events [N] and those options that were sent, as Triton delivers them.

        Raises
        ------
        RequestError
            With one line for the client.
        """
        options = read_options(raw, self.items, self.limits)
        check_sizes(self.program.columns, raw, self.limits.events, self.limits.id_bytes)
        sessions = len(set(raw[self.program.session].tolist()))
        if sessions > self.limits.sessions:
            raise RequestError(f"the request holds {sessions} sessions: send at most {self.limits.sessions} at a time")
        return Request(raw, options, sessions, len(raw[self.program.session]))

    def answer(self, requests: Sequence[Request]) -> list[dict[str, Array]]:
        """Rank the items for all sessions of several requests.

        Returns
        -------
        list of dict
            For each request ``session_id`` [S], ``item_id`` [S, k] in original ids, ``score`` float32 [S, k] and
            ``unknown_events`` int64 [S].

        Raises
        ------
        RequestError
            When a value of an event cannot be used; with several requests it does not say whose.
        """
        answers: list[dict[str, Array]] = [{}] * len(requests)
        # A list of candidates is for one request, so that request is ranked by itself.
        groups = [[number] for number, one in enumerate(requests) if one.options.candidates is not None]
        groups.append([number for number, one in enumerate(requests) if one.options.candidates is None])
        for numbers in filter(None, groups):
            for number, answer in zip(numbers, self._answer([requests[n] for n in numbers]), strict=True):
                answers[number] = answer
        return answers

    def _answer(self, requests: Sequence[Request]) -> Iterator[dict[str, Array]]:
        sessions = self.program.run_together([one.raw for one in requests])
        ids, scores = self._rank(sessions, [one.options for one in requests])
        item_id, scores = self.items.decode(ids), np.maximum(scores, _LOWEST)
        ends = np.cumsum(sessions.requests).tolist()
        for request, begin, end in zip(requests, [0, *ends], ends, strict=False):
            rows, columns = slice(begin, end), slice(request.options.top_k)
            yield {
                "session_id": sessions.session_id[rows],
                "item_id": item_id[rows, columns],
                "score": scores[rows, columns],
                "unknown_events": sessions.unknown_events[rows],
            }

    def _rank(self, sessions: Sessions, options: Sequence[Options]) -> tuple[Array, Array]:
        top_k = max(one.top_k for one in options)
        excluded, candidates = _excluded(sessions, options), options[0].candidates
        parts = []
        for begin in range(0, len(sessions.session_id), self._rows):
            rows = slice(begin, begin + self._rows)
            part = {name: self._tensor(values[rows]) for name, values in sessions.features.items()}
            count = len(sessions.session_id[rows])
            with torch.inference_mode():
                scores, ids = self._model(
                    part,
                    top_k,
                    None if excluded is None else self._tensor(excluded[rows]),
                    None if candidates is None else self._tensor(np.tile(candidates, (count, 1))),
                )
            parts.append((ids.cpu().numpy(), scores.cpu().numpy()))
        if len(parts) == 1:
            return parts[0]
        return np.concatenate([ids for ids, _ in parts]), np.concatenate([scores for _, scores in parts])

    def _tensor(self, values: Array) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(values)).to(self._device)


def _excluded(sessions: Sessions, options: Sequence[Options]) -> Array | None:
    """What no session may be recommended, as codes [S, M] filled up with 0; None when nothing is excluded."""
    if not any(one.exclude_seen or one.excluded is not None for one in options):
        return None
    seen = sessions.features["item_id"]
    lists = [np.zeros(0, dtype=np.int64) if one.excluded is None else one.excluded for one in options]
    longest = max(map(len, lists))
    listed = np.stack([np.pad(codes, (0, longest - len(codes))) for codes in lists])
    strikes = np.array([one.exclude_seen for one in options])
    request = np.repeat(np.arange(len(options)), sessions.requests)
    return np.concatenate([listed[request], np.where(strikes[request, None], seen, 0)], axis=1)


def _verify(folder: Path) -> None:
    wanted = json.loads((folder / CHECKSUMS).read_text(encoding="utf-8"))
    for name, checksum in wanted.items():
        if sha256(folder / name) != checksum:
            raise ValueError(f"{name} is not what was exported (its SHA-256 differs): export or deploy again")
    # The weights may be another model's, at "../../that model/its version/".
    missing = {SETTINGS, WEIGHTS} - {Path(name).name for name in wanted}
    if missing:
        raise ValueError(f"{CHECKSUMS} does not name {', '.join(sorted(missing))}: export or deploy again")
