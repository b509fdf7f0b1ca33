"""What went well in cases that users of neighbouring tools have reported, and is to stay so: a journal that belongs to somebody else and
may only be read, a sweep one of whose runs cannot be built, long notes and odd names of folders.
"""
import os
import zoneinfo  # noqa: F401  (pandas imports it late)
from pathlib import Path

import pytest
from latentlab.facade import make_run
from latentlab.journal.journal import Journal
from latentlab.sweeps.plan import Plan, grid
from latentlab.sweeps.sweep import Sweep
from latentlab.train.example import MeanRun
from latentlab.train.trainer import Trainer

RUN = MeanRun().replace(steps=3)


def trained(root: Path) -> str: return Trainer(RUN, journal=root).fit(progress=False).recorder.id


@pytest.mark.parametrize("name", ["läb bõok 文", "a b", "x" * 200])
def test_a_journal_in_a_folder_of_any_name(tmp_path, name):
    journal = Journal(tmp_path / name)
    id = trained(journal.root)
    journal.note(id, "é" * 20_000)
    (row,) = Journal(tmp_path / name).rows()
    assert (row["state"], row["note"]) == ("done", "é" * 20_000)
    assert "é" * 100 in journal.report(id).save(tmp_path / f"{name[:50]}.html").read_text()


@pytest.mark.skipif(not hasattr(os, "fork") or os.geteuid() != 0, reason="another user can be played by root alone")
def test_a_journal_of_somebody_else_is_read_and_its_runs_are_resumed(tmp_path):
    root, read, write = tmp_path / "runs", *os.pipe()
    id = trained(root)
    Journal(root).runs()  # what is imported late may lie where the other user cannot read
    for path in (root, *root.rglob("*")): path.chmod(0o555 if path.is_dir() else 0o444)
    for path in (tmp_path, *tmp_path.parents): path.chmod(path.stat().st_mode | 0o055) if str(path).startswith("/tmp/") else None
    if not (child := os.fork()):
        said = []
        try:
            os.setuid(65534)
            os.environ["LATENTLAB_CACHE"] = "/nonexistent"
            said.append(len(Journal(root).runs()))
            said.append(Trainer(RUN).resume(Journal(root).run(id).checkpoint()).step_count)
            try: Trainer(RUN, journal=root)
            except (OSError, ValueError) as error: said.append(type(error).__name__)
        except BaseException as error: said.append(repr(error))
        os.write(write, repr(said).encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as back: said = back.read()
    os.waitpid(child, 0)
    assert said in ("[1, 3, 'PermissionError']", "[1, 3, 'ValueError']")


@pytest.mark.slow
def test_a_sweep_goes_on_beside_a_run_that_cannot_be_built(tmp_path):
    base = make_run("hvae", {"data": "moons", "points": 400, "train.steps": 3})
    sweep = Sweep(Plan(base=base, changes=grid({"train.batch": [4096, 32]})), tmp_path / "runs", workers=1).start().wait(progress=False)
    found = sorted((outcome.state, outcome.error) for outcome in sweep.outcomes.values())
    assert [state for state, _ in found] == ["done", "failed"] and "`batch`" in found[1][1]
