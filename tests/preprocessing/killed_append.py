"""Run by test_append.py: appends in processes that are killed, and looks at what they leave.

    python killed_append.py FOLDER "at every step" | "at random moments"

FOLDER holds dataset.json, features/ with days, and the corrected files. Each process works on a copy of the features.
Appending starts threads, which no forked process would have: so this process never appends, only its children do.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

from common.artefacts import read_manifest
from common.days import list_days, read_day, session_files
from preprocessing.append import append
from preprocessing.settings import Dataset

RANDOM_KILLS = 6
STEPS = ("os.rename", "os.link", "os.mkdir", "os.rmdir", "os.remove", "shutil.rmtree")


def die_at(step: int, days: Path) -> None:
    """Kill this process before it changes the folder of days for the n-th time."""
    seen = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal seen
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        inside = str(days) in str(arguments) and ".append.partial" not in str(arguments[0])
        if (event in STEPS or writes) and inside:
            seen += 1
            if seen > step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def in_child(work) -> bool:
    """Whether a function ended by itself in a process of its own."""
    child = os.fork()
    if not child:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, "an append failed"
    return os.WIFEXITED(status)


def content(features: Path) -> dict[str, dict[str, bytes]]:
    """The session files of every day, after all checks."""
    read_manifest(features, "features", "nextitem preprocess")
    found = {}
    for day in list_days(features):
        report = read_day(features, day)["report"]
        files = session_files(features / "days" / day)
        assert {path.name.split("-")[1] for path in files} <= {part["name"] for part in report["parts"]}
        found[day] = {path.name: path.read_bytes() for path in files}
    return found


def main(folder: Path, how: str) -> None:
    dataset = Dataset.model_validate(json.loads((folder / "dataset.json").read_text()))
    files = [folder / "05.parquet", folder / "06.parquet"]
    features = folder / "copy" / "features"

    def fresh() -> None:
        shutil.rmtree(features.parent, ignore_errors=True)
        shutil.copytree(folder / "features", features)
        for path in files:
            # Names are told from where the features are.
            shutil.copy(path, features.parent)

    def work() -> None:
        append(dataset, features, [features.parent / path.name for path in files], replace=True)

    fresh()
    before = content(features)
    began = time.monotonic()
    assert in_child(work)
    seconds, after = time.monotonic() - began, content(features)
    assert before.keys() == {"2024-01-05", "2024-01-08"}
    assert after.keys() == {"2024-01-05", "2024-01-07"}

    def state() -> str:
        now = content(features)
        for day in before.keys() | after.keys():
            assert now.get(day) in (before.get(day), after.get(day)), f"{day} is neither as before nor as after"
        return "before" if now == before else "after" if now == after else "between"

    states, kills, generator = [], 0, random.Random(7)
    for number in range(200):
        if how == "at random moments" and kills == RANDOM_KILLS:
            break
        fresh()
        if how == "at every step":
            ended = in_child(lambda step=number: (die_at(step, features / "days"), work()))
        else:
            child = os.fork()
            if not child:
                work()
                os._exit(0)
            time.sleep(generator.uniform(0.2, 1) * seconds)
            os.kill(child, signal.SIGKILL)
            ended = os.WIFEXITED(os.waitpid(child, 0)[1])
        states.append(state())
        if ended and how == "at every step":
            break
        kills += not ended
        assert in_child(work)
        assert content(features) == after
        assert not [path for path in (features / "days").iterdir() if path.name.startswith(".")]
    print(json.dumps({"kills": kills, "states": sorted(set(states))}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
