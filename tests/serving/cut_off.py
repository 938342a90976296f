"""A change of a repository that is cut off on its way."""

from pathlib import Path

import pytest


def cut_off(monkeypatch, after, change):
    """Run `change` in a process that ends after so many renames of files and folders."""
    real, done = Path.rename, []

    def rename(path, target):
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(target)
        return real(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(KeyboardInterrupt):
        change()
    monkeypatch.undo()
