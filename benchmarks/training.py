"""Sessions a second and memory of training, ours beside Transformers4Rec 23.12 in an environment of its own.

    python -m benchmarks.training --arch gpt2 --masking clm --items 100000
                                  [--loss cross-entropy|sampled-softmax] [--negatives N] [--length 20] [--shortest N]
                                  [--precision float32|bfloat16] [--batch-size 128] [--sessions N] [--steps N]
                                  [--runs 3] [--modes raw,loader] [--only nextitem|t4r] [--json]

The same parquet file and schema, architecture, sizes (d 64, 2 layers, 4 heads, weights tied), batch, loss, targets,
AdamW and one thread for both; item ids only, every session as long as `--length` unless `--shortest` says otherwise.
Each run is a process of its own, the contenders take turns, and the median of the runs is shown. The first steps do not
count.

    raw      padded batches are in memory before the clock starts, the same tensors for both: the step alone
    loader   batches come from the parquet file, each by its own loader; Transformers4Rec's is Merlin's

Transformers4Rec runs in a plain loop, which is faster than its Trainer. The figures on top of the JSON are those of the
first mode. Peak memory is of the whole process, and net of what importing takes; sessions a CPU second are what a busy
machine moves least.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.t4r import environment
from benchmarks.t4r.process import ask
from common.display import number, show_json, show_line, show_table
from common.errors import UserError
from common.progress import step

OURS, T4R = "nextitem", "t4r"
MODES = ("raw", "loader")
SIZES = {"d_model": 64, "n_layer": 2, "n_head": 4, "dropout": 0.2, "learning_rate": 1e-3, "weight_decay": 0.01}
WARM_UP = 3
# Masks are drawn at random: their number may differ by as much.
_TOLERANCE = 0.05


def compare(request: dict[str, Any], contenders: list[str], modes: list[str], runs: int) -> dict[str, Any]:
    """Train with each contender in turn.

    Parameters
    ----------
    request : dict
        ``architecture``, ``masking``, ``loss``, ``negatives``, ``items``, ``sessions``, ``shortest``, ``length``,
        ``batch_size``, ``steps``, ``precision``.
    contenders, modes : list of str
        Which; at least one each.
    runs : int
        Of each contender in each mode.

    Returns
    -------
    dict
        ``{"setup": request, "modes": {mode: {contender: medians}}}``; see `benchmarks.training_.timing.measure`.

    Raises
    ------
    UserError
        When a contender cannot be installed or fails, or when they did not train on as many targets.
    """
    from benchmarks.training_.data import make

    sides = {OURS: (sys.executable, "benchmarks.training_.ours"), T4R: ("", "benchmarks.t4r.inside.speed")}
    if T4R in contenders:
        sides[T4R] = (str(environment.python()), sides[T4R][1])
    found: dict[str, dict[str, list[dict[str, float]]]] = {mode: {name: [] for name in contenders} for mode in modes}
    with tempfile.TemporaryDirectory() as folder, step("Training", runs * len(modes) * len(contenders)) as bar:
        make(Path(folder), *(request[name] for name in ("items", "sessions", "shortest", "length")))
        for _ in range(runs):
            for mode in modes:
                for name in contenders:
                    asked = SIZES | request | {"folder": folder, "mode": mode, "warm_up": WARM_UP}
                    found[mode][name].append(ask(*sides[name], asked))
                    bar.advance()
    results = {mode: {name: middle(each) for name, each in by_name.items()} for mode, by_name in found.items()}
    for by_name in results.values():
        check(by_name)
    return {"setup": request, "modes": results}


def middle(runs: list[dict[str, float]]) -> dict[str, Any]:
    """Medians of several runs, and the rate of each."""
    medians = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    return {**medians, "runs": [run["sessions_per_s"] for run in runs]}


def check(by_name: dict[str, dict[str, Any]]) -> None:
    """Refuse to compare contenders that had more or less to learn from.

    Raises
    ------
    UserError
        When their targets a step differ.
    """
    counts = [one["targets"] for one in by_name.values()]
    if max(counts) > (1 + _TOLERANCE) * min(counts):
        shown = ", ".join(f"{name} {one['targets']:,.1f}" for name, one in by_name.items())
        raise UserError(f"the contenders trained on different numbers of targets a step, take more --steps: {shown}")


def headline(result: dict[str, Any]) -> dict[str, Any]:
    """The result with the first mode's rate and memory of each contender on top."""
    first = next(iter(result["modes"].values()))
    names = ("sessions_per_s", "peak_mib", "net_mib")
    return {**{name: {key: one[key] for key in names} for name, one in first.items()}, **result}


def show(result: dict[str, Any]) -> None:
    """Print the table."""
    setup, rows = result["setup"], []
    for mode, by_name in result["modes"].items():
        for name, one in by_name.items():
            other = by_name.get(T4R)
            rows.append(
                (
                    mode,
                    name,
                    f"{one['sessions_per_s']:,.0f}",
                    f"{one['sessions_per_cpu_s']:,.0f}",
                    f"{one['sessions_per_s'] / other['sessions_per_s']:.2f}x" if other else "",
                    f"{one['targets']:,.1f}",
                    f"{one['peak_mib']:,.0f}",
                    f"{one['net_mib']:,.0f}",
                    number(int(one["parameters"])),
                )
            )
    title = "{architecture} {masking}, {items:,} items, {loss}, {precision}, {batch_size} sessions of {lengths} a step"
    lengths = "-".join(sorted({str(setup["shortest"]), str(setup["length"])}, key=int))
    columns = ("", "", "sessions/s", "a CPU second", "x t4r", "targets a step", "peak MiB", "net MiB", "parameters")
    show_table(title.format(**setup, lengths=lengths), columns, rows)
    runs = len(next(iter(next(iter(result["modes"].values())).values()))["runs"])
    show_line(f"Medians of {runs} runs of {setup['steps']} steps, one thread.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="gpt2", choices=("gpt2", "xlnet", "electra", "albert"), help="the backbone")
    parser.add_argument("--masking", default="clm", choices=("clm", "mlm"), help="the objective")
    parser.add_argument("--loss", default="cross-entropy", choices=("cross-entropy", "sampled-softmax"))
    parser.add_argument("--negatives", type=int, default=1000, metavar="N", help="of the sampled softmax")
    for name, value, what in (
        ("items", 100_000, "in the catalogue"),
        ("sessions", 20_000, "in the parquet file"),
        ("length", 20, "most events of a session"),
        ("batch-size", 128, "sessions a step"),
        ("steps", 20, "of each run"),
        ("runs", 3, "of each contender in each mode"),
    ):
        parser.add_argument(f"--{name}", type=int, default=value, metavar="N", help=f"{what}, {value:,} by default")
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16"), help="of both: by autocast")
    parser.add_argument("--shortest", type=int, metavar="N", help="fewest events of a session, --length by default")
    parser.add_argument("--modes", default=",".join(MODES), help="raw, loader or both; the first makes the headline")
    parser.add_argument("--only", choices=(OURS, T4R), help="one contender alone")
    parser.add_argument("--json", action="store_true", help="machine-readable results on standard output")
    return parser


def request_of(options: argparse.Namespace) -> dict[str, Any]:
    """What to measure.

    Raises
    ------
    UserError
        When the arguments do not fit together.
    """
    names = ("masking", "loss", "negatives", "items", "sessions", "length", "batch_size", "steps", "precision")
    request = {"architecture": options.arch, **{name: getattr(options, name) for name in names}}
    request["shortest"] = options.length if options.shortest is None else options.shortest
    if (options.arch == "gpt2") != (options.masking == "clm"):
        raise UserError(f"--arch {options.arch} --masking {options.masking}: clm is for gpt2, mlm for the others")
    if not 2 <= request["shortest"] <= request["length"]:
        raise UserError("--shortest must be from 2 to --length")
    if min(request["items"], request["negatives"], request["batch_size"], request["steps"], options.runs) < 1:
        raise UserError("--items, --negatives, --batch-size, --steps and --runs must be at least 1")
    if request["sessions"] < request["batch_size"]:
        raise UserError("--sessions must be at least --batch-size")
    return request


def main() -> None:
    """Measure and print."""
    options = _parser().parse_args()
    modes = [mode.strip() for mode in options.modes.split(",")]
    try:
        if not set(modes) <= set(MODES):
            raise UserError(f"--modes {options.modes}: must be of {', '.join(MODES)}")
        contenders = [options.only] if options.only else [OURS, T4R]
        result = headline(compare(request_of(options), contenders, modes, options.runs))
    except UserError as error:
        sys.exit(f"error: {error}")
    if options.json:
        show_json(result)
    else:
        show(result)


if __name__ == "__main__":
    main()
