"""Plans and sweeps: what is to be trained is checked before any time is spent, every run is trained once, and no death,
error or stop costs more than itself.
"""
import json
import os
import signal
import subprocess
import sys
import threading
import time
import types
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from latentlab.facade import make_trainer
from latentlab.journal.files import read_lines
from latentlab.journal.journal import Journal
from latentlab.journal.writer import newest_checkpoint
from latentlab.sweeps.plan import Plan, cross, grid
from latentlab.sweeps.sweep import Sweep, estimate, spell
from latentlab.sweeps.workers import Outcome, Pool, WorkerDied, hand_over, known_run, let_go, train_one, work
from latentlab.train.checkpoint import load_checkpoint
from latentlab.train.example import MeanRun
from latentlab.train.trainer import Trainer

RUN = MeanRun().replace(steps=40)


@pytest.fixture(autouse=True)
def apart(tmp_path_factory, monkeypatch):
    "A cache of the test's own, and no repository around."
    monkeypatch.setenv("LATENTLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.chdir(tmp_path_factory.mktemp("work"))
    monkeypatch.setattr(ByHand, "last", None)


class Here:
    "A backend of threads in this process: what a sweep does without the seconds that a process needs to start."
    made = 0

    def __init__(self, workers):
        type(self).made += 1
        self.threads = ThreadPoolExecutor(workers)

    def submit(self, call, *words): return self.threads.submit(call, *words)

    def interrupt(self): pass

    def close(self): self.threads.shutdown()


class ByHand:
    "A backend whose calls are answered by the test."
    last = None

    def __init__(self, workers): self.workers, self.calls, self.interrupts, ByHand.last = workers, [], 0, self

    def submit(self, call, *words):
        self.calls.append((words[0], future := Future()))
        return future

    def interrupt(self):
        self.interrupts += 1
        for _, future in self.calls:
            if not future.done(): future.set_result(Outcome(state="interrupted"))

    def close(self): pass

    def waiting(self): return [(run, future) for run, future in self.calls if not future.done()]


def until(condition, seconds=60.0):
    "What a condition gives once it gives something."
    limit = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.01)
    return found


def weights(journal, id): return load_checkpoint(newest_checkpoint(journal.folder(id)))


def same_bits(a, b):
    "Checkpoints that stand at the same step with the same weights and optimisers."
    return (a["step"] == b["step"] and all(torch.equal(a["model"][k], b["model"][k]) for k in a["model"])
            and str(a["optimisers"]) == str(b["optimisers"]))


def finals(journal):
    return {row["digest"]: (row["steps"], row["metrics"], row["figures"]) for row in journal.rows() if row["state"] == "done"}


def adds_up(progress):
    return (progress.done + progress.found + progress.failed + progress.left + getattr(progress, "elsewhere", 0) == progress.total
            and 0 <= progress.running)


# Plans ------------------------------------------------------------------------------------------------------------------

def test_a_plan_lists_every_run_before_one_is_trained():
    plan = Plan(base=RUN, changes=cross(grid({"pull": [0.0, 0.5], "noise": [0.1, 0.2]}),
                                        [{"learning_rate": 0.01, "batch": 8}, {"learning_rate": 0.02}]),
        seeds=range(3), name="all")
    runs = plan.runs()
    assert len(plan) == len(runs) == 24 == len({run.get("seed") * 100 + i for i, run in enumerate(runs)})
    assert [(r.get("seed"), r.get("pull"), r.get("noise"), r.get("learning_rate"), r.get("batch"))
            for r in runs[:3]] == [(0, 0.0, 0.1, 0.01, 8), (0, 0.0, 0.1, 0.02,
        16), (0, 0.0, 0.2, 0.01, 8)]
    assert [run.get("seed") for run in runs] == [0] * 8 + [1] * 8 + [2] * 8
    table = plan.table()
    assert list(table.columns) == ["model.pull", "model.noise", "train.learning_rate", "train.batch", "seed"] and len(table) == 24
    assert str(plan) == "all: 24 runs, 8 settings x 3 seeds, 40 steps each"


@pytest.mark.parametrize("words, said", [
    (dict(changes=[]), "at least one run: got 0 settings and 1 seeds"), (dict(seeds=[]), "at least one run: got 1 settings and 0 seeds"),
    (dict(seeds=range(0)),
    "at least one run"),
    (dict(changes=[{"no_such": 1}]), "`no_such` must be a "
                                     "field of MeanRun"), (dict(changes=[{"model.seed": 1}]), "`model.seed` must be a field"),
    (dict(changes=[{"noise": 2.0}]), "`noise` must be at most 1"), (dict(changes=[{"noise": "x"}]), "`noise` must be a float"),
    (dict(changes=[{"optimiser": "lion"}]), "`optimiser` must be one of"),
    (dict(seeds=[-1]), "`seed` must be at least 0"), (dict(seeds=[0.5]), "`seed` must be a int"),
    (dict(seeds=[0, 1, 0]), "each run once: got run 2 equal to run 0"),
    (dict(changes=[{}, {"pull": 0.0}]), "run 1 equal to run 0"), (dict(changes=[{"pull": 1}, {"pull": 1.0}]), "equal"),
    (dict(changes=[{"device": "cpu"},
    {"device": "auto"}]), "equal"),
    (dict(changes=[{"seed": 5}]), "seed"), (dict(changes=[{"train.seed": 5}]), "seed"), (dict(changes=[{"seed": 0}, {"seed": 1}]), "seed"),
])
def test_what_cannot_be_trained_is_refused_at_once(words, said, unchecked):
    with pytest.raises(ValueError, match=said): Plan(base=RUN, **words)


@pytest.mark.parametrize("axes, said", [({"pull": []}, "none for pull"), ({"pull": [1.0], "optimiser": "adam"}, "none for optimiser"),
                                        ({"a": (), "b": []}, "none for a, b")])
def test_an_axis_without_values_is_refused(axes, said):
    with pytest.raises(ValueError, match=said): grid(axes)


def test_grids_and_crosses_have_known_sizes():
    assert grid({}) == [{}] and len(grid({"a": [1, 2, 3], "b": [1, 2]})) == 6 and grid({"a": [1, 2], "b": [3, 4]})[1] == {"a": 1, "b": 4}
    assert (cross() == [{}] and cross([{"a": 1}], [{"b": 1}, {"b": 2}]) == [{"a": 1, "b": 1}, {"a": 1, "b": 2}]
            and cross([{"a": 1}], []) == [])


# Bad input --------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("words, said", [(dict(workers=0), "`workers` must be at least 1"),
                                         (dict(workers=-2), "`workers` must be at least 1"), (dict(retries=-1),
    "`retries` must be at least 0")])
def test_a_sweep_that_could_never_end_is_refused(tmp_path, words, said):
    with pytest.raises(ValueError, match=said): Sweep(Plan(base=RUN), tmp_path, **words)


@pytest.mark.parametrize("workers", [0, -1, True, 1.5, None])
def test_a_pool_has_workers(workers, unchecked):
    with pytest.raises(ValueError, match="`workers` must be at least 1"): Pool(workers)


def test_settings_of_the_notebook_are_refused(tmp_path, monkeypatch):
    @dataclass(frozen=True, kw_only=True)
    class Mine(MeanRun): pass

    monkeypatch.setattr(Mine, "__module__", "__main__")
    with pytest.raises(ValueError, match="that a worker can import: got Mine of this notebook"): Sweep(Plan(base=Mine()), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_journal_that_cannot_be_written_is_refused_before_it_starts(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="`root` must be a folder that can be written"): Sweep(Plan(base=RUN), tmp_path / "file")


# Keeping count ----------------------------------------------------------------------------------------------------------

def test_every_run_is_trained_once_and_found_the_second_time(tmp_path):
    plan, made = Plan(base=RUN, changes=grid({"noise": [0.1, 0.2]}), seeds=range(3), name="mine"), Here.made
    sweep = Sweep(plan, tmp_path, workers=2, backend=Here).start().wait(progress=False)
    journal, progress = Journal(tmp_path), sweep.progress()
    rows = journal.rows()
    assert ((progress.done, progress.found, progress.failed, progress.left, progress.running, progress.state) == (6, 0, 0, 0, 0, "done")
            and str(progress) == "6 of 6 done")
    assert (len(rows) == 6 and {(row["state"], row["steps"], row["sweep"]) for row in rows} == {("done", 40, "mine")}
            and len({row["digest"] for row in rows}) == 6)
    assert sorted(journal.group("loss")[("runs", "n")]) == [3, 3] and len(sweep.results()) == 6 and Here.made == made + 1
    again = Sweep(Plan(base=RUN, changes=grid({"noise": [0.1, 0.2, 0.3]}), seeds=range(3)), tmp_path, workers=2,
                  backend=Here).start().wait(progress=False)
    assert (again.progress().done, again.progress().found) == (3, 6) and len(journal.rows()) == 9
    for row in rows: assert "went_on" not in (journal.folder(row["id"]) / "metrics.jsonl").read_text(), "trained twice"
    made = Here.made
    assert Sweep(plan, tmp_path,
                 backend=Here).start().wait(progress=False).progress().found == 6 and Here.made == made, "workers were started for nothing"
    assert again.start().wait(progress=False).progress().state == "done", "a sweep that has ended may be started again"


def test_the_numbers_add_up_at_every_moment(tmp_path):
    plan = Plan(base=RUN, seeds=range(8))
    train_one(RUN.replace(seed=5), tmp_path)
    sweep = Sweep(plan, tmp_path, workers=2, backend=ByHand, retries=0)
    assert adds_up(sweep.progress()) and sweep.progress().state == "ready" and sweep.progress().seconds_left is None
    sweep.start()
    answers = [Outcome(state="done", id="a", seconds=10.0), Outcome(state="failed", id="b", error="ValueError: x"), Outcome(state="busy"),
               WorkerDied("gone"),
        Outcome(state="found", id="c"),
               Outcome(state="done", id="d", seconds=20.0), Outcome(state="interrupted")]
    seen = []
    for number, answer in enumerate(answers):
        until(lambda: ByHand.last and ByHand.last.waiting())
        seen.append(sweep.progress())
        assert adds_up(seen[-1]) and 1 <= seen[-1].running <= 2 and seen[-1].total == 8
        _, future = ByHand.last.waiting()[0]
        future.set_exception(answer) if isinstance(answer, Exception) else future.set_result(answer)
        until(lambda: len(sweep.outcomes) >= number + 2)  # noqa: B023
    sweep.wait(progress=False)
    end = sweep.progress()
    assert adds_up(end) and (end.done, end.found, end.failed, end.running) == (2, 2, 2, 0)
    assert seen[1].seconds_left == pytest.approx(10.0 * 6 / 2) and seen[0].seconds_left is None
    assert [p.done + p.failed + p.found for p in seen] == sorted(p.done + p.failed + p.found for p in seen)


def test_looking_while_it_works_disturbs_nothing(tmp_path):
    class Quick(ByHand):
        def submit(self, call, *words):
            future = Future()
            future.set_result(Outcome(state="done", id="x", seconds=0.1))
            return future

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        sweep = Sweep(Plan(base=RUN, seeds=range(150)), tmp_path, workers=2, backend=Quick).start()
        early = sweep.outcomes
        while sweep.state == "running": assert adds_up(sweep.progress())
    finally: sys.setswitchinterval(before)
    assert sweep.wait(progress=False).progress().done == 150 == len(sweep.outcomes)
    early.clear()  # What was read is the reader's own: it neither changes under the hand nor is a way into the sweep
    assert len(sweep.outcomes) == 150 and set(sweep.tries.values()) == {1} and sweep.tries is not sweep.tries


def test_start_twice_is_refused(tmp_path):
    sweep = Sweep(Plan(base=RUN, seeds=range(3)), tmp_path, backend=ByHand).start()
    with pytest.raises(ValueError, match="`start` must not be called twice"): sweep.start()
    until(lambda: ByHand.last and ByHand.last.waiting())
    sweep.stop()
    assert sweep.state == "stopped" and adds_up(sweep.progress()) and sweep.progress().left == 3 and ByHand.last.interrupts >= 1


def test_wait_gives_up_after_its_time_and_the_sweep_goes_on(tmp_path):
    sweep = Sweep(Plan(base=RUN), tmp_path, backend=ByHand).start()
    begun = time.monotonic()
    assert sweep.wait(progress=False, timeout=0.5) is sweep and sweep.state == "running" and time.monotonic() - begun > 0.4
    sweep.stop()


def test_an_interrupt_of_wait_has_stopped_the_sweep(tmp_path):
    sweep = Sweep(Plan(base=RUN, seeds=range(3)), tmp_path, backend=ByHand).start()
    until(lambda: ByHand.last and ByHand.last.waiting())
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt): sweep.wait(progress=False, timeout=60)
    assert sweep.state == "stopped" and sweep.progress().left == 3
    sweep.start().stop()


def test_an_estimate_trains_nothing_into_the_journal(tmp_path):
    found = estimate(Plan(base=RUN, seeds=range(7)), 5, 2)
    assert (found.seconds == pytest.approx(found.each * 3) and found.each == pytest.approx(found.build + 40 * found.step)
            and 0 < found.step < 1)
    assert "5 runs to train" in str(found) and list(tmp_path.iterdir()) == []
    assert estimate(Plan(base=RUN, changes=[{"steps": 20}, {"steps": 100}]), 2, 1).steps == 60
    assert [spell(s) for s in (0.4, 99, 100, 5999, 7200)] == ["0 s", "99 s", "2 min", "100 min", "2.0 h"]


# Errors and deaths ------------------------------------------------------------------------------------------------------

def test_failed_runs_keep_their_error_and_the_sweep_goes_on(tmp_path):
    plan = Plan(base=RUN, changes=[{}, {"side": 40}, {"poison": 7}, {"noise": 0.2}])
    sweep = Sweep(plan, tmp_path, workers=2, backend=Here).start().wait(progress=False)
    assert (sweep.progress().done, sweep.progress().failed, sweep.state, sweep.error) == (2, 2, "done", None)
    errors = sorted(outcome.error for outcome in sweep.outcomes.values() if outcome.state == "failed")
    assert ("`pull` must stay finite" in errors[0] and errors[0].startswith("NonFiniteStep")
            and errors[1].startswith("ValueError: `side` must be at most 32"))
    rows = {row["settings"]["model.poison"]: row for row in Journal(tmp_path).rows() if row["state"] == "failed"}
    assert list(
        rows) == [7] and "must stay finite" in rows[7]["error"], "a run that could not be built has no folder; one that failed says why"
    assert sum(row["state"] == "done" for row in Journal(tmp_path).rows()) == 2 and len(Journal(tmp_path).rows()) == 3
    assert sweep.start().wait(progress=False).progress().failed == 2, "a second attempt tries the failed ones again"
    assert sum(row["state"] == "done" for row in Journal(tmp_path).rows()) == 2


def test_a_base_that_cannot_be_built_ends_the_sweep_with_its_words(tmp_path):
    sweep = Sweep(Plan(base=RUN.replace(side=40), seeds=range(4)), tmp_path, workers=2, backend=Here).start().wait(progress=False)
    assert sweep.state == "done" and sweep.progress().failed == 4
    assert {o.error for o in sweep.outcomes.values()} == {"ValueError: `side` must be at most 32 for this data: got 40. Use 4."}
    assert Journal(tmp_path).rows() == [] and sweep.results().empty


@pytest.mark.parametrize("retries, deaths, ends", [(2, 1, "done"), (2, 2, "done"), (2, 3, "failed"), (0, 1, "failed"), (1, 9, "failed")])
def test_a_death_costs_a_run_one_try(tmp_path, retries, deaths, ends):
    sweep, died = Sweep(Plan(base=RUN, seeds=range(3)), tmp_path, workers=1, backend=ByHand, retries=retries).start(), 0
    while sweep.state == "running":
        for run, future in ByHand.last.waiting() if ByHand.last else []:
            if run.get("seed") == 1 and died < deaths:
                died += 1
                future.set_exception(WorkerDied("worker 7 died in the middle of a run"))
            else: future.set_result(Outcome(state="done", id="x", seconds=1.0))
        time.sleep(0.005)
    sweep.wait(progress=False)
    (outcome,) = [o for name, o in sweep.outcomes.items() if sweep.dispatcher.runs[name].get("seed") == 1]
    assert outcome.state == ends and died == min(deaths, retries + 1) and max(sweep.tries.values()) == min(deaths, retries) + 1
    assert sweep.progress().done == (3 if ends == "done" else 2) and sweep.state == "done"
    if ends == "failed": assert outcome.error == f"WorkerDied: worker 7 died in the middle of a run; given out {retries + 1} times"


def test_an_error_of_the_driver_is_raised_by_wait_and_it_can_start_again(tmp_path, monkeypatch):
    from latentlab.sweeps import sweep as module

    class Dead(ByHand):
        def submit(self, call, *words):
            future = Future()
            future.set_exception(WorkerDied("gone"))
            return future

    sweep = Sweep(Plan(base=RUN, seeds=range(3)), tmp_path, workers=1, backend=Dead, retries=0)
    with monkeypatch.context() as patch:
        patch.setattr(module, "known_run", lambda *words: (_ for _ in ()).throw(OSError("the journal's disk is gone")))
        with pytest.raises(OSError, match="disk is gone"): sweep.start().wait(progress=False, timeout=60)
        assert sweep.state == "stopped" and adds_up(sweep.progress())
    assert sweep.start().wait(progress=False, timeout=60).state == "done" and sweep.progress().failed == 3


# One run ----------------------------------------------------------------------------------------------------------------

def test_a_run_killed_before_its_last_word_is_done_in_the_end(tmp_path):
    outcome, journal = train_one(RUN, tmp_path), Journal(tmp_path)
    path = journal.folder(outcome.id) / "run.json"
    facts = json.loads(path.read_text())
    path.write_text(json.dumps(facts | {"state": "running", "by": facts["by"] | {"pid": 2**22 + 1}}))
    assert journal.rows()[0]["state"] == "lost"
    again = train_one(RUN, tmp_path)
    assert (again.state, again.id, journal.rows()[0]["state"], journal.rows()[0]["steps"]) == ("done", outcome.id, "done", 40)
    assert train_one(RUN, tmp_path).state == "found" and len(journal.rows()) == 1


def test_a_run_that_was_begun_is_gone_on_with(tmp_path):
    for steps in (15, 40):
        trainer = Trainer(RUN.replace(seed=steps), journal=tmp_path).fit(min(steps, 30), progress=False)
        outcome = train_one(RUN.replace(seed=steps), tmp_path)
        assert (outcome.state, outcome.id) == ("done", trainer.recorder.id)
        straight = Trainer(RUN.replace(seed=steps)).fit(40, progress=False)
        assert all(torch.equal(a, b) for a, b in zip(weights(Journal(tmp_path), outcome.id)["model"].values(),
                                                     straight.model.state_dict().values()))


def test_a_run_without_a_checkpoint_begins_anew(tmp_path):
    trainer, journal = Trainer(RUN, journal=tmp_path).fit(15, progress=False), Journal(tmp_path)
    for path in (journal.folder(trainer.recorder.id) / "checkpoints").iterdir(): path.unlink()
    outcome = train_one(RUN, tmp_path)
    assert outcome.state == "done" and outcome.id != trainer.recorder.id and weights(journal, outcome.id)["step"] == 40


def test_damaged_checkpoints_are_an_outcome_not_a_crash(tmp_path):
    trainer, journal = Trainer(RUN, journal=tmp_path).fit(15, progress=False), Journal(tmp_path)
    path = newest_checkpoint(journal.folder(trainer.recorder.id))
    path.write_bytes(path.read_bytes()[:50])
    outcome = train_one(RUN, tmp_path)
    assert outcome.state in ("failed", "done")
    if outcome.state == "failed": assert "undamaged checkpoint" in outcome.error


def test_a_run_that_somebody_trains_is_busy(tmp_path):
    journal = Journal(tmp_path)
    claim = journal.claim(RUN)
    assert claim.take() and train_one(RUN, tmp_path).state == "busy" and train_one(RUN.replace(seed=1), tmp_path).state == "done"
    claim.release()
    assert train_one(RUN, tmp_path).state == "done"


def test_a_paused_panel_with_the_same_settings_does_not_fail_the_sweep(tmp_path):
    panel = Trainer(RUN, journal=tmp_path).start()
    until(lambda: panel.step_count > 3)
    panel.pause()
    outcome = train_one(RUN, tmp_path)
    panel.stop(finished=False)
    assert outcome.state in ("busy", "done"), outcome.error
    assert train_one(RUN, tmp_path).state in ("done", "found")


def test_a_changed_run_is_not_taken_for_what_its_settings_say(tmp_path):
    trainer = Trainer(RUN, journal=tmp_path).fit(20, progress=False)
    trainer.set(pull=2.0)
    trainer.fit(20, progress=False)
    assert known_run(Journal(tmp_path), RUN) is None
    outcome = train_one(RUN, tmp_path)
    assert outcome.state == "done" and outcome.id != trainer.recorder.id


# Two drivers, and real processes ----------------------------------------------------------------------------------------

DRIVER = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
import torch
torch.set_num_threads(1)
from latentlab.sweeps.plan import Plan
from latentlab.sweeps.sweep import Sweep
from latentlab.train.example import MeanRun

class Here:
    def __init__(self, workers): self.threads = ThreadPoolExecutor(workers)
    def submit(self, call, *words): return self.threads.submit(call, *words)
    def interrupt(self): pass
    def close(self): self.threads.shutdown()

root, start = sys.argv[1], sys.argv[2]
open(f"{start}-{sys.argv[3]}", "w").close()
import os
while not all(os.path.exists(f"{start}-{k}") for k in range(2)): time.sleep(0.001)
sweep = Sweep(Plan(base=MeanRun().replace(steps=60), seeds=range(12), name=f"driver {sys.argv[3]}"), root, workers=2, backend=Here).start().wait(progress=False)
print(sorted(o.state for o in sweep.outcomes.values()), sweep.progress())
"""


def test_two_drivers_train_every_run_once(tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    drivers = [subprocess.Popen([sys.executable, script, tmp_path / "runs", tmp_path / "go", str(k)], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True) for k in range(2)]
    said = [driver.communicate(timeout=120) for driver in drivers]
    assert [driver.returncode for driver in drivers] == [0, 0], said
    journal = Journal(tmp_path / "runs")
    rows = journal.rows()
    assert len(rows) == 12 and {row["state"] for row in rows} == {"done"} and sorted(row["seed"] for row in rows) == list(range(12)), said
    for row in rows:
        assert (journal.run(row["id"]).metrics().steps == list(range(10, 70, 10))
                and "went_on" not in (journal.folder(row["id"]) / "metrics.jsonl").read_text())
    assert not any("failed" in out for out, _ in said) and {row["sweep"] for row in rows} <= {"driver 0", "driver 1"}


SLOW = """
import time
from dataclasses import dataclass
from dataclasses import replace
from latentlab.train.example import Mean, MeanRun

class Slow(Mean):
    def losses(self, batch, context):
        time.sleep({seconds})
        return super().losses(batch, context)

@dataclass(frozen=True, kw_only=True)
class SlowRun(MeanRun):
    def build(self, device):
        setup = MeanRun.build(self, device)
        return replace(setup, model=Slow(self.model, setup.preview.shape[1:]))
"""


@pytest.fixture
def slow(tmp_path, monkeypatch):
    "Makes a module of runs whose steps take a while; workers can import it."
    made = []

    def make(seconds):
        name = f"slow_{os.getpid()}_{len(made)}"
        (tmp_path / "modules").mkdir(exist_ok=True)
        (tmp_path / "modules" / f"{name}.py").write_text(SLOW.format(seconds=seconds))
        monkeypatch.syspath_prepend(tmp_path / "modules")
        made.append(name)
        return __import__(name).SlowRun()

    yield make
    for name in made: sys.modules.pop(name, None)


def at_work(journal, *, checkpoint=True):
    return [row for row in journal.rows() if row["state"] == "running"
            and (not checkpoint or any((journal.folder(row["id"]) / "checkpoints").glob("*.ckpt")))]


@pytest.mark.slow
def test_a_stop_leaves_checkpoints_and_the_next_sweep_ends_with_the_same_bits(tmp_path, slow):
    plan = Plan(base=slow(0.02).replace(steps=60), seeds=range(3))
    sweep, journal = Sweep(plan, tmp_path / "runs", workers=1).start(), Journal(tmp_path / "runs")
    (row,) = until(lambda: at_work(journal))
    sweep.stop()
    assert sweep.state == "stopped" and {o.state for o in sweep.outcomes.values()} <= {"interrupted", "done"}, sweep.outcomes
    assert adds_up(sweep.progress()) and sweep.progress().failed == 0
    for stopped in journal.rows():
        assert stopped["state"] in ("interrupted", "done"), stopped
        assert load_checkpoint(newest_checkpoint(journal.folder(stopped["id"])))["step"] == stopped["steps"]
    assert journal.rows()[0]["steps"] < 60
    ended = Sweep(plan, tmp_path / "runs", workers=2, backend=Here).start().wait(progress=False)
    assert ended.progress().done + ended.progress().found == 3 and len(journal.rows()) == 3, "the stopped run went on in its own folder"
    straight = Journal(tmp_path / "straight")
    for run in plan.runs(): train_one(run, straight.root)
    mine = {r["digest"]: r["id"] for r in journal.rows()}
    for other in straight.rows(): assert same_bits(weights(journal, mine[other["digest"]]), weights(straight, other["id"]))
    for digest, (steps, metrics, figures) in finals(straight).items():
        assert (finals(journal)[digest][0] == steps and finals(journal)[digest][2] == figures
                and finals(journal)[digest][1] == pytest.approx(metrics, rel=1e-12))


def test_a_stop_in_the_middle_of_long_steps_interrupts_each_once(tmp_path, slow):
    plan = Plan(base=slow(0.7).replace(steps=50), seeds=range(2))
    sweep, journal = Sweep(plan, tmp_path / "runs", workers=1).start(), Journal(tmp_path / "runs")
    until(lambda: at_work(journal, checkpoint=False))
    time.sleep(1.0)
    sweep.stop()
    assert sorted(o.state for o in sweep.outcomes.values()) == ["interrupted",
                                                                "interrupted"] or [o.state
                                                                                   for o in sweep.outcomes.values()] == ["interrupted"], sweep.outcomes
    assert [row["state"] for row in journal.rows()] in (["interrupted"], ["interrupted", "interrupted"])
    row = journal.rows()[0]
    assert row["steps"] >= 1 and load_checkpoint(newest_checkpoint(
        journal.folder(row["id"])))["step"] == row["steps"], "the step in progress was ended, and saved"


@pytest.mark.slow
def test_a_killed_worker_costs_one_try_then_its_run_is_given_up_and_the_sweep_goes_on(tmp_path):
    plan = Plan(base=MeanRun().replace(steps=4000, checkpoint_every=100), seeds=range(2))
    journal, killed = Journal(tmp_path / "runs"), []
    sweep = Sweep(plan, journal, workers=1, retries=1).start()

    def kill(seed):
        (row,) = until(lambda: [row for row in at_work(journal) if row["seed"] == seed and row["by"]["pid"] not in killed])
        killed.append(row["by"]["pid"])
        os.kill(killed[-1], signal.SIGKILL)
        until(lambda: journal.rows()[0]["state"] != "running" or journal.rows()[0]["by"]["pid"] != killed[-1])

    first = until(lambda: at_work(journal))[0]["seed"]
    kill(first), kill(first)
    sweep.wait(progress=False, timeout=120)
    outcomes = {sweep.dispatcher.runs[name].get("seed"): outcome for name, outcome in sweep.outcomes.items()}
    assert (outcomes[first].state == "failed" and "died in the middle of a run" in outcomes[first].error
            and "given out 2 times" in outcomes[first].error)
    rows = {row["seed"]: row for row in journal.rows()}
    assert (rows[first]["state"] == "failed" and "died in the middle" in rows[first]["error"] and rows[1 - first]["state"] == "done"
            and len(rows) == 2)
    found = read_lines(journal.folder(rows[first]["id"]) / "metrics.jsonl")
    assert found.skipped <= 2 and len(found.rows) > 10, "what it had measured is kept"


def test_settings_that_a_worker_cannot_import_end_the_sweep_in_words(tmp_path):
    module = types.ModuleType("only_in_this_process")
    exec("from dataclasses import dataclass\nfrom latentlab.train.example import MeanRun\n@dataclass(frozen=True, kw_only=True)\nclass "
         "Mine(MeanRun): pass", module.__dict__)
    sys.modules[module.__name__] = module
    try:
        sweep = Sweep(Plan(base=module.Mine().replace(steps=5), seeds=range(2)), tmp_path, workers=1,
                      retries=0).start().wait(progress=False, timeout=90)
    finally: del sys.modules[module.__name__]
    assert (sweep.state == "done" and sweep.progress().failed == 2
            and all("died" in o.error or "only_in_this_process" in o.error for o in sweep.outcomes.values()))


def test_a_pool_that_was_interrupted_begins_nothing_and_closes_twice():
    before, pool = set(threading.enumerate()), Pool(1)
    pool.interrupt()
    assert pool.submit(int, "7").result(60) == Outcome(state="interrupted"), "no worker was started for it"
    pool.close()
    pool.close()
    assert not [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("latentlab-sweep_")]


def test_an_interrupt_in_a_worker_is_an_outcome():
    def interrupted(): raise KeyboardInterrupt
    assert work(lambda: 3, ()) == 3 and work(interrupted, ()) == Outcome(state="interrupted")
    with pytest.raises(ZeroDivisionError): work(lambda: 1 / 0, ())


# Images and an encoder of one's own ---------------------------------------------------------------------------------

def own_plan(**more):
    from latentlab.families.nem.experiment import NEMRun

    return Plan(base=NEMRun().replace({"data": "scenes", "model.width": 4, "model.layers": 1, "train.batch": 8, "train.steps": 2,
                                       "train.check_every": 1, "train.device": "cpu"} | more), seeds=range(2))


def own_things_of(seed=0):
    from latentlab.data.images import ImageSet
    from latentlab.nn.encoders import FrozenEncoder, SmallEncoder

    stream = torch.Generator().manual_seed(seed)
    pixels = (255 * torch.rand(60, 3, 16, 16, generator=stream)).byte()
    images = ImageSet(name="mine", split="all", images=pixels, licence="mine", source="drawn")
    small = SmallEncoder(3, (2, 2), (8, 16), generator=stream)
    return {"images": images, "encoder": FrozenEncoder(small, small.names, name="mine")}


def test_a_sweep_of_own_images_and_encoder_is_the_trainers_run(tmp_path):
    "Each run is that of a trainer with the same things, is found again with them, and is another run with others."
    plan, own = own_plan(), own_things_of()
    sweep = Sweep(plan, tmp_path, backend=Here, workers=1, **own).start().wait(progress=False)
    assert [outcome.state for outcome in sweep.outcomes.values()] == ["done", "done"], sweep.outcomes
    assert not any((tmp_path / ".handed").iterdir())
    run = plan.runs()[1]
    alone = make_trainer(run, own).fit(2, progress=False)
    theirs = make_trainer(run, own, tmp_path).resume()
    assert theirs.step_count == 2
    assert all(torch.equal(a, b) for a, b in zip(alone.model.state_dict().values(), theirs.model.state_dict().values()))
    recorded = [json.loads((Journal(tmp_path).folder(row["id"]) / "run.json").read_text())["given"]["data"] for row in Journal(tmp_path).rows()]
    assert recorded == [own["images"].fingerprint()] * 2
    again = Sweep(plan, tmp_path, backend=Here, workers=1, **own).start().wait(progress=False)
    assert [outcome.state for outcome in again.outcomes.values()] == ["found", "found"]
    other = Sweep(plan, tmp_path, backend=Here, workers=1, **own | {"images": own_things_of(1)["images"]}).start().wait(progress=False)
    assert [outcome.state for outcome in other.outcomes.values()] == ["done", "done"] and len(Journal(tmp_path).rows()) == 4


@pytest.mark.slow
def test_own_things_reach_a_worker_process(tmp_path):
    plan = own_plan()
    sweep = Sweep(Plan(base=plan.base), tmp_path, workers=1, **own_things_of()).start().wait(progress=False)
    assert [outcome.state for outcome in sweep.outcomes.values()] == ["done"], sweep.outcomes
    assert str(sweep.estimate()).startswith("0 runs to train")


class Dying(Here):
    "No call comes back."

    def submit(self, call, *words):
        future = Future()
        future.set_exception(WorkerDied("killed"))
        return future


def test_a_run_of_own_things_whose_worker_dies_is_called_failed(tmp_path):
    "It is known by its settings and its things together."
    plan, own = own_plan(), own_things_of()
    begun = make_trainer(plan.runs()[0], own, tmp_path).fit(1, progress=False)
    begun.stop()
    sweep = Sweep(Plan(base=plan.runs()[0]), tmp_path, backend=Dying, workers=1, retries=0, **own).start().wait(progress=False)
    (outcome,) = sweep.outcomes.values()
    assert outcome.state == "failed" and outcome.id == begun.recorder.id and "given out 1 times" in outcome.error


def test_what_a_killed_sweep_left_is_removed_by_the_next_one(tmp_path):
    "And what a sweep that runs has written is left alone."
    script = ("import os, sys; from latentlab.sweeps.workers import hand_over\n"
              "print(hand_over({'scale': 1}, {}, sys.argv[1]).path, flush=True); os.kill(os.getpid(), 9)")
    said = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True).stdout.strip()
    assert Path(said).is_file() and len(list((tmp_path / ".handed").iterdir())) == 2
    held = hand_over({"scale": 2}, {}, tmp_path)
    Sweep(Plan(base=RUN), tmp_path, backend=Here, workers=1).start().wait(progress=False)
    assert [path.name for path in (tmp_path / ".handed").glob("*.pickle")] == [Path(held.path).name]
    let_go(held)
    assert not any((tmp_path / ".handed").iterdir())


def test_what_cannot_be_handed_to_workers_is_refused(tmp_path):
    from latentlab.nn.encoders import FrozenEncoder

    own = own_things_of()
    with pytest.raises(ValueError, match=r"`picture` must be something that NEMRun takes beside its settings: got int\. It takes encoder"):
        Sweep(own_plan(), tmp_path, picture=3)
    with pytest.raises(ValueError, match="`encoder` must be something that MeanRun takes beside its settings.*It takes nothing"):
        Sweep(Plan(base=RUN), tmp_path, encoder=own["encoder"])
    with pytest.raises(ValueError, match="`images` must be left out for MeanRun: got ImageSet. Its settings name no images"):
        Sweep(Plan(base=RUN), tmp_path, images=own["images"])
    with pytest.raises(ValueError, match="channels"): Sweep(own_plan(), tmp_path, encoder=own["encoder"], images=own["images"].images[:, :1])
    small = own["encoder"].module
    secret = FrozenEncoder(small, small.names, lambda out: out)
    sweep = Sweep(own_plan(), tmp_path, images=own["images"], encoder=secret, backend=Here).start()
    with pytest.raises(ValueError, match="`encoder` must be something that can be sent to a worker.*Name a layer"): sweep.wait(progress=False)


def test_the_same_folder_trains_an_explainer_an_hvae_and_a_sweep(tmp_path):
    import latentlab as ll
    import numpy as np
    from PIL import Image

    stream = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(120):
        coarse = Image.fromarray(stream.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((48, 36))
        coarse.save(tmp_path / "photos" / f"{number:03}.{'png' if number % 2 else 'jpg'}")
    name, small = f"folder:{tmp_path / 'photos'}", {"train.steps": 2, "train.batch": 8, "train.device": "cpu", "train.check_every": 1}
    hierarchy = ll.train("hvae", data=name, layers=1, latents=(4,), hidden=16, steps=2, batch=8, device="cpu", check_every=1, progress=False)
    assert hierarchy.step_count == 2 and tuple(hierarchy.setup.preview.shape[1:]) == (3, 28, 28)
    base = ll.family("nem").experiment().replace({"data": name, "encoder": "untrained", "model.width": 4, "model.layers": 1} | small)
    sweep = ll.Sweep(ll.Plan(base=base, seeds=range(2)), tmp_path / "runs", backend=Here, workers=1).start().wait(progress=False)
    assert [outcome.state for outcome in sweep.outcomes.values()] == ["done", "done"], sweep.outcomes
    mine = ll.images(tmp_path / "photos", size=64, quiet=True)
    sweep = ll.Sweep(ll.Plan(base=base.replace(data="scenes")), tmp_path / "runs", backend=Here, workers=1, images=mine).start().wait(progress=False)
    assert [outcome.state for outcome in sweep.outcomes.values()] == ["done"], sweep.outcomes
    assert len(ll.Journal(tmp_path / "runs").rows()) == 3
