"""Does the compiled program prepare requests as the workflow prepared training? Checked on real sessions at export."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from common.errors import UserError
from common.progress import step
from preprocessing.engine import nvtabular
from serving.columns import convert_events
from serving.runtime.program import RequestProgram, Sessions

# Both sides compute in single precision, but not always in the same order.
_NEAR = 1e-5


def verify(workflow: nvtabular.Workflow, program: RequestProgram, sample: Path) -> int:
    """Run both over the sample of raw events that preprocessing kept, and compare.

    Parameters
    ----------
    workflow : nvtabular.Workflow
        Fitted.
    program : RequestProgram
        Compiled from it.
    sample : Path
        Raw events of held-out sessions.

    Returns
    -------
    int
        How many sessions were compared.

    Raises
    ------
    UserError
        When they differ: names the feature and the session.
    """
    with step("Comparing the compiled workflow with NVTabular's") as bar:
        wire, frame = both_ways(program, sample)
        # Sessions that are too short to learn from are answered all the same.
        group: Any = workflow.output_node.op
        shortest, group.min_length = group.min_length, 1
        try:
            offline = workflow.transform(frame)
        finally:
            group.min_length = shortest
        online = program.run(wire)
        compared = compare(offline, online)
        bar.say(f"{compared:,} sessions, no difference")
    return compared


def both_ways(program: RequestProgram, sample: Path) -> tuple[dict[str, Any], Any]:
    """Raw events as a client sends them to the program, arrays by column, and as the workflow takes them, a DataFrame.

    Parameters
    ----------
    program : RequestProgram
        Says which columns there are.
    sample : Path
        Parquet of raw events.
    """
    table = pq.read_table(sample)
    wire = dict(convert_events(table.to_pydict(), {column.name: column.type for column in program.columns}))
    frame = table.to_pandas()
    for column in program.columns:
        if column.role == "time":
            frame[column.name] = column.decode(wire[column.name])
    return wire, frame


def compare(offline: Mapping[str, Any], online: Sessions) -> int:
    """Compare the workflow's sessions, lists of values, with the program's, padded arrays.

    Where sessions are cut by inactivity the workflow gives all of a visitor's, and the program the latest.
    """
    latest = {_text(session): row for row, session in enumerate(offline["session_id"])}
    found = [_text(session) for session in online.session_id.tolist()]
    if set(found) != set(latest):
        differing = sorted(set(found) ^ set(latest))
        raise UserError(
            f"the compiled workflow and NVTabular's differ in their sessions: {differing[0]} is in only one"
        )
    rows = [latest[session] for session in found]
    for name, padded in online.features.items():
        lists = offline[name]
        for position, row in enumerate(rows):
            expected = np.asarray(lists[row])
            values, rest = np.split(padded[position], [len(expected)])
            exact = padded.dtype.kind in "iu"
            same = np.array_equal(values, expected) if exact else np.allclose(values, expected, rtol=_NEAR, atol=_NEAR)
            if not same or rest.any():
                raise UserError(
                    f"the compiled workflow differs from NVTabular's in '{name}' of session {found[position]}: "
                    f"{values.tolist()} and {expected.tolist()}; nothing was written"
                )
    return len(rows)


def _text(session: Any) -> str:
    return session.decode() if isinstance(session, bytes) else str(session)
