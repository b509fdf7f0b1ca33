"""The trainer: one seed gives one result however it is run and interrupted, changes are in force at their step, and no
failure costs what was trained.
"""
import errno
import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from latentlab.core.model import Group, Setup
from latentlab.core.settings import Live, Range, Settings, setting
from latentlab.core.snapshot import Measurement
from latentlab.core.terms import Terms
from latentlab.data.batches import Batches
from latentlab.data.sources import with_images
from latentlab.families.nem.experiment import NEMRun
from latentlab.train.checkpoint import load_checkpoint, save_checkpoint
from latentlab.train.curves import CurveBuffer
from latentlab.train.example import Mean, MeanRun, MeanSettings
from latentlab.train.optimiser import LEAST_SIZE, MOST_MOVED
from latentlab.train.recorder import Recorder
from latentlab.train.session import NonFiniteStep, Session, check_state, step
from latentlab.train.settings import TrainSettings
from latentlab.train.trainer import Load, Pause, Rebuild, Start, Trainer
from latentlab.train.worker import Ended, Worker
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

TINY = NEMRun().replace(images=64, batch=8, encoder="untrained", layers=2, width=4, device="cpu", check_every=8, checkpoint_every=10)


@pytest.fixture(scope="module")
def fixed_parts():
    "What is slow to build and never changes: images and encoder are read once, every trainer gets a model of its own."
    from latentlab.data.images import load
    from latentlab.nn.encoders import load_encoder
    return load("fashion-mnist", "train", limit=80), load_encoder("untrained:fashion-mnist")


@pytest.fixture
def nem(fixed_parts):
    "Makes trainers of a tiny masker."
    made = []

    def make(changes=None, folder=None):
        images, encoder = fixed_parts
        build = lambda run, device: run.build(device, encoder=encoder)
        made.append(Trainer(with_images(TINY.replace(changes or {}), images), folder=folder, build=build))
        return made[-1]

    yield make
    for trainer in made: trainer.stop()


@pytest.fixture
def mean():
    "Makes trainers of the mean image."
    made = []

    def make(changes=None, **options):
        made.append(Trainer(MeanRun().replace(changes or {}), **options))
        return made[-1]

    yield make
    for trainer in made: trainer.stop()


def frozen(value):
    "A copy that further training does not touch."
    if isinstance(value, torch.Tensor): return value.detach().clone()
    if isinstance(value, dict): return {k: frozen(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)): return [frozen(v) for v in value]
    return value


def state_of(trainer):
    "Everything that a run must have in common with its repeat: all but the seconds it took."
    return {k: v for k, v in frozen(trainer.session.state()).items() if k != "seconds"}


def same(a, b):
    "Equal to the last bit, at any depth; NaN equals NaN."
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))
    if isinstance(a, dict): return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(same, a, b))
    return a == b


def until(condition, seconds=60.0):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.002)


# One seed, one result -----------------------------------------------------------------------------------------------

def test_a_seed_decides_weights_optimiser_and_curves(nem):
    first, again, other = (nem({"seed": seed}).fit(12, progress=False) for seed in (0, 0, 1))
    assert same(state_of(first), state_of(again))
    assert not same(state_of(first)["model"], state_of(other)["model"])


def test_the_global_random_stream_neither_decides_nor_is_used(nem):
    drawn = {"fill": "mixed", "neighbourhood": "train", "jitter": 3}
    torch.manual_seed(1)
    first = nem(drawn)
    before = torch.get_rng_state()  # layers of torch draw weights when they are made, which are then drawn anew
    first.fit(5, progress=False).snapshot()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    assert same(state_of(first), state_of(nem(drawn).fit(5, progress=False)))


def test_thread_pictures_checks_and_pieces_change_nothing(nem):
    plain = state_of(nem({"fill": "mixed"}).fit(24, progress=False))
    threaded = nem({"fill": "mixed"}).start(24)
    shown = 0
    while threaded.state == "running" or not shown: shown += threaded.snapshot(timeout=60) is not None
    assert shown and same(state_of(threaded.wait()), plain)
    pieces = nem({"fill": "mixed"})
    for n in (1, 7, 3): pieces.fit(n, progress=False).measure()
    pieces.step(5).wait().snapshot()
    pieces.step(2).pause()  # within its two steps or after them
    pieces.stop().fit(24 - pieces.step_count, progress=False)
    assert same(state_of(pieces), plain)


def test_pausing_at_odd_moments_loses_no_step(mean):
    trainer, plain = mean(), mean()
    for i in range(20):
        trainer.start()
        if i % 3 == 0: time.sleep(0.001)
        if i % 2: trainer.snapshot()
        trainer.pause()
        at = trainer.step_count
        time.sleep(0.001)
        assert trainer.step_count == at and trainer.state == "paused"
    if trainer.step_count: plain.fit(trainer.step_count, progress=False)
    assert same(state_of(trainer)["model"], state_of(plain)["model"])


# Resume -------------------------------------------------------------------------------------------------------------

CHILD = """
import signal, sys, torch
signal.signal(signal.SIGINT, signal.default_int_handler), signal.signal(signal.SIGHUP, signal.SIG_DFL)  # ignored under nohup and by some shells
torch.set_num_threads(1)
from latentlab.train.example import MeanRun
from latentlab.train.trainer import Trainer
trainer = Trainer(MeanRun().replace(steps=10**6, checkpoint_every=10), folder=sys.argv[1])
losses, calls = trainer.model.losses, []
def slow(batch, context):
    calls.append(1)
    if len(calls) == 17:
        print("inside", flush=True)
        sys.stdin.readline()
    return losses(batch, context)
trainer.model.losses = slow
if sys.argv[2] == "thread": trainer.start().wait()
else:
    try: trainer.fit(progress=False)
    except KeyboardInterrupt: sys.exit(33)
"""
CUT = MeanRun().replace(steps=10**6, checkpoint_every=10)


@pytest.mark.parametrize("number, where, code, saved", [
    # the step in progress is finished
    (signal.SIGINT, "caller", 33, 17), (signal.SIGTERM, "thread", 143, 17), (signal.SIGKILL, "caller", -9, 10),
    pytest.param(signal.SIGTERM, "caller", 143, 17, marks=pytest.mark.slow),
    pytest.param(signal.SIGHUP, "caller", 129, 17, marks=pytest.mark.slow),
    pytest.param(signal.SIGHUP, "thread", 129, 17, marks=pytest.mark.slow)])
def test_an_interrupted_process_goes_on_to_the_last_bit(tmp_path, mean, number, where, code, saved):
    with subprocess.Popen([sys.executable, "-c", CHILD, str(tmp_path), where], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as child:
        assert child.stdout.readline() == "inside\n"
        child.send_signal(number)
        time.sleep(0.1)
        if number != signal.SIGKILL: child.communicate("\n", timeout=120)
        assert child.wait(120) == code
    trainer, whole = Trainer(CUT, folder=tmp_path).resume(), Trainer(CUT)
    assert trainer.step_count == saved or (where == "thread" and saved <= trainer.step_count < 10**6)
    whole.fit(trainer.step_count + 5, progress=False)
    assert same(state_of(trainer.fit(5, progress=False)), state_of(whole))


def test_ctrl_c_stops_between_two_steps_and_says_so(nem, tmp_path):
    trainer = nem(folder=tmp_path)
    losses, before = trainer.model.losses, signal.getsignal(signal.SIGINT)

    def interrupt(batch, context):
        if trainer.step_count == 6: signal.raise_signal(signal.SIGINT)
        return losses(batch, context)

    trainer.model.losses = interrupt
    with pytest.raises(KeyboardInterrupt): trainer.fit(20, progress=False)
    assert (trainer.step_count, trainer.state, trainer.notice, trainer.error) == (7, "paused", "interrupted by the keyboard", None)
    assert signal.getsignal(signal.SIGINT) is before
    saved = nem(folder=tmp_path).resume()
    assert saved.step_count == 7 and same(state_of(saved), state_of(trainer))


def test_a_signal_that_somebody_else_handles_reaches_him_after_the_step(mean, tmp_path):
    heard, before = [], signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    trainer = mean(folder=tmp_path)
    losses = trainer.model.losses
    trainer.model.losses = lambda batch, context: (trainer.step_count == 4 and signal.raise_signal(signal.SIGTERM),
                                                   losses(batch, context))[1]
    try:
        with pytest.raises(KeyboardInterrupt, match="interrupted by SIGTERM"): trainer.fit(20, progress=False)
    finally: signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM] and trainer.step_count == 5 and mean(folder=tmp_path).resume().step_count == 5


def test_live_changes_are_part_of_what_is_resumed(nem, tmp_path):
    whole, first = nem(), nem(folder=tmp_path)
    for trainer in (whole, first): trainer.fit(6, progress=False).set(kl_scale=0.3, fill="mean", learning_rate=1e-3).fit(6, progress=False)
    later = nem(folder=tmp_path).resume()
    assert later.run.model.kl_scale == 0.3 and later.run.model.fill == "mean" and later.live.values["learning_rate"] == 1e-3
    assert same(state_of(later.fit(9, progress=False)), state_of(whole.fit(9, progress=False)))


@pytest.mark.parametrize("optimiser", ["adamw", "adam", "sgd"])
def test_every_optimiser_learns_and_resumes(mean, tmp_path, optimiser):
    changes = {"optimiser": optimiser, "noise": 0.0, "batch": 64, "clip": None}
    mean(changes, folder=tmp_path).fit(30, progress=False)
    whole = mean(changes).fit(400, progress=False)
    trainer = mean(changes, folder=tmp_path).resume().fit(370, progress=False)
    assert same(state_of(trainer), state_of(whole))
    far = (whole.model.level - whole.setup.batches.images.mean(0)).abs().max()
    assert far < 0.02  # the minimum is known: the mean of 64 images, approached by constant steps


# Changes ------------------------------------------------------------------------------------------------------------

def test_a_change_is_recorded_and_in_force_at_the_next_step(mean):
    trainer, seen = mean(), []
    losses = trainer.model.losses

    def record(batch, context):
        live = context.live
        seen.append((context.step, live.values["pull"], live.pull.item(), trainer.model.weights(context)["pull"].item()))
        return losses(batch, context)

    trainer.model.losses = record
    for value in (0.0, 1.5, 1.5, 4.0): trainer.set(pull=value).fit(3, progress=False)
    # the same again is no change
    assert [(c.step, c.name, c.old, c.new) for c in trainer.changes] == [(3, "pull", 0.0, 1.5), (9, "pull", 1.5, 4.0)]
    assert [s for s, *_ in seen] == list(range(12))
    for at, *values in seen: assert values == [0.0 if at < 3 else 1.5 if at < 9 else 4.0] * 3
    assert trainer.run.model.pull == 4.0 == trainer.model.settings.pull


@pytest.mark.parametrize("optimiser", ["adamw", "adam"])
def test_no_rate_carries_the_weights_away(mean, optimiser):
    "At the upper end of the slider no step moves the level by more than its share, and afterwards the level is where it was."
    trainer = mean({"optimiser": optimiser, "noise": 0.0, "clip": None}).fit(300, progress=False)
    home, far = frozen(trainer.model.level), []
    trainer.set(learning_rate=0.1)
    for _ in range(80):
        before = frozen(trainer.model.level)
        trainer.fit(1, progress=False)
        far.append(((trainer.model.level - before).square().mean().sqrt() / (before.square().mean().sqrt() + LEAST_SIZE)).item())
    assert max(far) < MOST_MOVED * 1.001
    trainer.set(learning_rate=0.05).fit(200, progress=False)
    assert (trainer.model.level - home).abs().max() < 0.05


def test_learning_rate_is_live(mean):
    trainer = mean({"optimiser": "sgd", "noise": 0.0}).fit(3, progress=False)
    before = frozen(trainer.model.level)
    trainer.set(learning_rate=1e-5).fit(1, progress=False)
    slow = (trainer.model.level - before).abs().max()
    trainer.set(learning_rate=0.1).fit(1, progress=False)
    assert (trainer.model.level - before).abs().max() > 1000 * slow


def test_adams_moments_begin_anew_after_a_change_and_once_more_after_twenty_steps(mean, tmp_path):
    def age(trainer): return {int(one["step"]) for one in trainer.session.optimisers[0].state.values()}

    trainer = mean({"optimiser": "adamw"}, folder=tmp_path).fit(30, progress=False)
    assert age(trainer.set(pull=0.0).fit(1, progress=False)) == {31}, "the same value is no change"
    trainer.set(pull=1.5)
    left = trainer.checkpoint().rename(tmp_path / "between.ckpt")  # what is still to come is part of a checkpoint
    ages = [age(trainer.fit(1, progress=False)) for _ in range(22)]
    assert ages == [{k} for k in (*range(1, 21), 1, 2)]
    again = mean({"optimiser": "adamw"}).resume(left).fit(22, progress=False)
    assert same(state_of(again), state_of(trainer)) and "restarts" not in again.session.state()
    state = again.session.state()
    for wrong in ([1], [10**9], ["x"], 3, [True]):
        with pytest.raises(ValueError, match="`restarts` must be at most 2 steps from"): check_state(again.session, state | {"restarts": wrong})


def test_two_threads_change_settings_at_once(mean):
    trainer, go = mean().start(), threading.Barrier(3)

    def turn(name, values):
        go.wait()
        for value in values: trainer.set({name: value})

    jobs = [("pull", [float(v) for v in range(1, 16)]), ("learning_rate", [0.01 + v / 1000 for v in range(15)])]
    threads = [threading.Thread(target=turn, args=job) for job in jobs]
    for thread in threads: thread.start()
    go.wait()
    for thread in threads: thread.join()
    trainer.pause()
    assert (trainer.run.model.pull, trainer.run.train.learning_rate, trainer.live.values["pull"]) == (15.0, 0.01 + 14 / 1000, 15.0)
    for name, values in jobs:  # none was lost and each begins where the one before ended
        moves = [c for c in trainer.changes if c.name == name]
        assert [c.new for c in moves] == values and [c.old for c in moves[1:]] == values[:-1]


def test_a_refused_change_changes_nothing(mean):
    trainer = mean().fit(2, progress=False)
    before = trainer.run, trainer.live, list(trainer.changes), trainer.version, state_of(trainer)
    for wrong in ({"pull": 1.0, "learning_rate": 5.0}, {"pull": 1.0, "noise": 0.2}, {"pull": 1.0, "push": 1.0}, {"pull": -1.0}):
        with pytest.raises(ValueError): trainer.set(wrong)
    assert trainer.run is before[0] and trainer.live is before[1] and (trainer.changes, trainer.version) == before[2:4]
    assert same(state_of(trainer), before[4])
    with pytest.raises(ValueError, match=r"`noise` must be a live setting: got one of kind build. Use rebuild\(noise=...\) instead."):
        trainer.set(noise=0.2)


@dataclass(frozen=True, kw_only=True)
class RangedSettings(MeanSettings):
    pull: float | Range = setting(0.0, kind="live", low=0, high=100, reason="each example may have its own")


@dataclass(frozen=True, kw_only=True)
class RangedRun(MeanRun):
    model: RangedSettings = field(default_factory=lambda: RangedSettings(pull=Range(0.5, 2.0, "log")))


def test_a_range_is_drawn_for_each_example_and_recorded(tmp_path):
    trainer, seen = Trainer(RangedRun(), journal=tmp_path), []
    losses = trainer.model.losses
    trainer.model.losses = lambda batch, context: (seen.append((batch.extra["pull"], context.live.pull)), losses(batch, context))[1]
    trainer.fit(4, progress=False).set(pull=Range(0.1, 0.2)).fit(2, progress=False).set(pull=3.0)
    for drawn, live in seen: assert drawn.shape == (16,) and torch.equal(drawn, live) and drawn.std() > 0
    assert min(d.min() for d, _ in seen[:4]) >= 0.5 and max(d.max() for d, _ in seen[4:]) <= 0.2 and not torch.equal(seen[0][0], seen[1][0])
    trainer.model.losses = losses
    trainer.fit(2, progress=False)
    again = Trainer(RangedRun(), journal=tmp_path).resume(trainer.recorder.id)
    assert again.run.model.pull == 3.0 and same(state_of(again), state_of(trainer))


# Commands -----------------------------------------------------------------------------------------------------------

def test_a_rebuild_while_running_goes_on_running(mean):
    trainer = mean().start()
    until(lambda: trainer.step_count > 20)
    assert trainer.rebuild(side=6).state == "running" and trainer.model.level.shape[-1] == 6
    until(lambda: trainer.step_count > 20)
    fresh = mean({"side": 6}).fit(trainer.pause().step_count, progress=False)
    assert same(state_of(trainer), state_of(fresh))  # from step 0, with nothing of the old run in it


FULL = [torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"), MemoryError(), ValueError("`layers` must be less")]


def failing(error):
    "A build that works once and then fails."
    built = []

    def build(run, device):
        built.append(run)
        if len(built) > 1: raise error
        return run.build(device)

    return build


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize("error", FULL, ids=lambda e: type(e).__name__)
def test_a_rebuild_that_fails_keeps_the_old_model_and_is_the_exception_of_its_future(mean, error, threaded):
    trainer, plain = mean(build=failing(error)), mean()
    trainer.start() if threaded else trainer.fit(7, progress=False)
    until(lambda: trainer.step_count > 5)
    model, run = trainer.model, trainer.run
    future = trainer.submit(Rebuild(changes={"side": 8}))
    assert future.exception(10) is error and trainer.notice == f"not rebuilt, the old model stays: {error}"
    assert trainer.model is model and trainer.run is run and trainer.error is None  # training has not failed
    if threaded:
        at = trainer.step_count
        until(lambda: trainer.step_count > at + 20)
        trainer.pause()
    assert same(state_of(trainer), state_of(plain.fit(trainer.step_count, progress=False)))


@pytest.mark.parametrize("wrong, sentence", [
    (lambda t: t.fit(3), "`fit` must not run beside the thread: got a trainer that was started. Call stop"),
    (lambda t: t.start(0), "`steps` must be at least 1: got 0. Use None"),
    (lambda t: t.rebuild(side=100), "`side` must be at most 64 px: got 100"),
    (lambda t: t.rebuild(device="cuda:77"), "`device` must be on this machine: got 'cuda:77'. Use auto or cpu"),
    (lambda t: t.rebuild(sides=3), "`sides` must be a field of MeanRun"),
    (lambda t: t.load("20260101-000000-mean-1234567"), "`journal` must be given to load a run: got None"),
    (lambda t: t.submit(7).result(), "`command` must be a command or a function of the trainer: got int"),
])
def test_what_must_not_happen_to_a_running_trainer(mean, wrong, sentence):
    trainer = mean().start()
    with pytest.raises(ValueError, match=sentence): wrong(trainer)
    at = trainer.step_count
    until(lambda: trainer.step_count > at + 5)
    assert trainer.state == "running" and trainer.error is None and trainer.notice == "" and trainer.run == MeanRun()


def test_an_end_refuses_what_waits_and_nothing_starts_after_it(mean):
    "A build of 0.2 s, three rebuilds each followed by Pause and Start, then an end."
    entered, before = threading.Event(), set(threading.enumerate())
    trainer = mean(build=lambda run, device: (run.model.side > 4 and (entered.set(), time.sleep(0.2)), run.build(device))[1]).start()
    futures = [trainer.submit(command) for side in (5, 6, 7) for command in (Rebuild(changes={"side": side}), Pause(), Start())]
    assert entered.wait(60)
    trainer.stop()
    assert all(future.done() for future in futures)
    assert futures[0].exception() is None and all(isinstance(future.exception(), Ended) for future in futures[1:])
    at = trainer.step_count, trainer.state, trainer.run.model.side
    time.sleep(0.5)
    assert (trainer.step_count, trainer.state, trainer.run.model.side) == at == (at[0], "stopped", 5) and not trainer.busy
    assert "latentlab-trainer" not in {thread.name for thread in set(threading.enumerate()) - before}


def test_ends_from_many_threads_while_others_give_commands(mean):
    trainer, ended = mean().start(), threading.Event()

    def give():
        for _ in range(100):
            if ended.is_set(): return
            for command in (Pause(), Start(), lambda t: t.step_count): trainer.submit(command).exception(60)

    givers = [threading.Thread(target=give) for _ in range(2)]
    for thread in givers: thread.start()
    until(lambda: trainer.step_count > 3)
    enders = [threading.Thread(target=trainer.stop) for _ in range(3)]
    ended.set()
    for thread in enders: thread.start()
    for thread in [*givers, *enders]: thread.join(60)
    trainer.stop()
    assert not any(thread.is_alive() for thread in [*givers, *enders]) and not trainer.busy and trainer.state == "stopped"


def test_a_stopped_trainer_can_be_started_again(mean):
    trainer = mean().start(5).wait().stop()
    assert not trainer.busy
    trainer.start(5).wait()
    assert same(state_of(trainer), state_of(mean().fit(10, progress=False)))


def test_a_run_is_named_by_its_id_or_its_folder(mean, tmp_path, monkeypatch):
    trainer = mean(journal=tmp_path / "runs").fit(6, progress=False)
    folder = tmp_path / "runs" / trainer.recorder.id
    for name in (trainer.recorder.id, folder, str(folder)):
        again = mean(journal=tmp_path / "runs").resume(name)
        assert (again.step_count, again.recorder.id) == (6, trainer.recorder.id)
    monkeypatch.chdir(tmp_path)  # a file beside us has no folder above its own that is named
    shutil.copy(next(folder.glob("checkpoints/*.ckpt")), tmp_path / "copy.ckpt")
    assert mean().resume(Path("copy.ckpt")).step_count == 6
    elsewhere = mean(journal=tmp_path / "others").resume(str(folder))  # weights of another journal's run; it records its own
    assert elsewhere.step_count == 6 and elsewhere.fit(2, progress=False).recorder.id != trainer.recorder.id


def test_load_and_resume_go_on_between_two_steps(mean, tmp_path):
    first = mean({"side": 5}, journal=tmp_path).fit(30, progress=False)
    trainer = mean(journal=tmp_path).start()
    trainer.submit(Load(id=first.recorder.id)).result(60)
    assert trainer.state == "running" and trainer.run.model.side == 5 and trainer.step_count >= 30
    assert trainer.recorder.id != first.recorder.id
    until(lambda: trainer.step_count > 40)
    assert trainer.recorder.record.facts["parent"] == {"id": first.recorder.id, "step": 30}
    trainer.resume(first.recorder.id)
    until(lambda: trainer.step_count > 35)
    assert trainer.recorder.id == first.recorder.id
    trainer.pause()
    assert same(state_of(trainer)["model"], state_of(mean({"side": 5}).fit(trainer.step_count, progress=False))["model"])


# Each part by itself ------------------------------------------------------------------------------------------------

def new_session(run=MeanRun()): return Session(run, run.build(torch.device("cpu")))


def test_a_session_alone_reaches_the_known_minimum():
    run = MeanRun().replace(noise=0.0, batch=64, pull=1.0)
    session, live = new_session(run), Live(run)
    for _ in range(500): step(session, live)
    assert (session.model.level - session.batches.images.mean(0) / 2).abs().max() < 0.01 and session.step == 500


def test_a_worker_alone_keeps_the_order_of_commands_and_raises_to_who_asked():
    done = []
    worker = Worker(carry_out=lambda c: done.append(c) or 1 / c, turn=lambda: None, busy=lambda: False, ended=lambda error: done.append(
        error))
    worker.start()
    futures = [worker.submit(n) for n in (4, 2, 0, 1)]
    assert [f.exception(60) is None for f in futures] == [True, True, False, True] and isinstance(futures[2].exception(), ZeroDivisionError)
    assert worker.end() and done == [4, 2, 0, 1, None] and not worker.alive
    assert worker.submit(8).result() == 1 / 8  # no loop: at once


def test_a_recorder_alone_does_nothing_without_a_journal():
    session, recorder = new_session(), Recorder()
    for call in (recorder.begin, recorder.stepped, recorder.write_line): call(session, Live(session.run))
    assert (recorder.record is None and recorder.folder is None and recorder.sentence == recorder.trouble == ""
            and session.curves.listener is None)


# Errors -------------------------------------------------------------------------------------------------------------

class Spoiled(Exception): "Of this test alone."


def test_an_error_in_a_model_is_kept_whole(mean, tmp_path):
    trainer = mean(folder=tmp_path)
    losses = trainer.model.losses

    def break_at_nine(batch, context):
        if context.step == 9: raise Spoiled("in step nine")
        return losses(batch, context)

    trainer.model.losses = break_at_nine
    with pytest.raises(Spoiled, match="in step nine") as caught: trainer.start().wait()
    assert caught.value is trainer.error and any(f.name == "break_at_nine" for f in caught.traceback)
    until(lambda: not trainer.busy)
    assert (trainer.state, trainer.notice, trainer.step_count) == ("failed", "Spoiled: in step nine", 9)
    assert trainer.snapshot().notice == trainer.notice and np.isfinite(trainer.snapshot().views["level"]).all()
    assert mean(folder=tmp_path).resume().step_count == 9  # nothing of what was trained is lost
    trainer.model.losses = losses
    assert same(state_of(trainer.start(3).wait()), state_of(mean().fit(12, progress=False)))


class Sick(Mean):
    "Goes bad at step 5 (the sixth), in the place that a test names."
    where = "square"

    def losses(self, batch, context):
        found = super().losses(batch, context)
        values, watched = dict(found), {"watched": batch.x.mean((1, 2, 3)).detach()}
        if self.calls > 5:
            bad = float("inf") if self.where.endswith("infinite") else float("nan")
            root = (self.level - self.level.detach()).square().sum().sqrt()  # 0, with an infinite slope
            if self.where == "gradient": values["square"] = values["square"] + 0 * root
            elif self.where == "watched": watched["watched"] = watched["watched"] * bad
            else: values[self.where.split()[0]] = values[self.where.split()[0]] + bad
        return Terms(values, observed=watched)


def sick(where):
    def build(run, device):
        setup = run.build(device)
        model = Sick(run.model, setup.preview.shape[1:])
        model.where = where
        return replace(setup, model=model)

    return build


@pytest.mark.parametrize("where, name, threaded", [
    ("square", "square", False), ("pull", "pull", True), ("square infinite", "square", True), ("gradient", "gradient_norm", False)])
def test_a_step_that_is_not_finite_is_stopped_by_name_with_the_weights_before_it(mean, where, name, threaded):
    trainer, healthy = mean(build=sick(where)), mean().fit(5, progress=False)
    with pytest.raises(NonFiniteStep, match=f"`{name}` must stay finite: got NaN or infinity at step 5. Lower `learning_rate`"):
        trainer.start().wait() if threaded else trainer.fit(20, progress=False)
    until(lambda: not trainer.busy)
    assert trainer.state == "failed" and trainer.step_count == 5 and isinstance(trainer.error, NonFiniteStep)
    assert torch.equal(trainer.model.level, healthy.model.level) and same(state_of(trainer)["optimisers"], state_of(healthy)["optimisers"])


def test_an_observed_term_that_goes_bad_is_named_when_it_is_read(mean):
    trainer = mean({"check_every": 10}, build=sick("watched"))
    with pytest.raises(NonFiniteStep, match="`watched` must stay finite: got NaN or infinity at step 5"): trainer.fit(20, progress=False)
    assert trainer.step_count == 10


# Groups, clipping, terms --------------------------------------------------------------------------------------------

@dataclass(frozen=True, kw_only=True)
class DuelRun(Settings):
    scale: float = setting(1.0, kind="live", low=0, high=10, reason="to be moved")
    train: TrainSettings = field(default_factory=lambda: TrainSettings(learning_rate=0.1, batch=8, weight_decay=0.0, device="cpu",
                                                                       optimiser="sgd", clip=0.5))

    def build(self, device):
        images = torch.rand(32, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        batches = Batches(images, self.train.batch, self.train.seed)
        return Setup(model=Duel(self), batches=batches, diagnostics=Nothing(), preview=images[:8], held_out=images[:8])


class Nothing:
    checks = ()

    def measure(self, model, context): return Measurement(step=context.step, figures={}, verdicts=())

    def views(self, model, context): return {}


class Duel(nn.Module):
    "One point is drawn to three; the other follows the first, at every third step and half as fast."

    def __init__(self, settings):
        super().__init__()
        self.settings, self.log, self.bad = settings, [], ""
        self.left, self.right = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.full((4,), 5.0))

    def groups(self):
        return (Group(name="left", parameters=(self.left,), terms=("to_three",)),
                Group(name="right", parameters=(self.right,), terms=("apart",), rate=0.5, every=3, optimiser="adam"))

    def losses(self, batch, context):
        self.log.append((context.step, context.group, frozen(self.left), frozen(self.right)))
        spoil = float("nan") if self.bad == context.group else 1.0
        if context.group == "left": return Terms({"to_three": spoil * (self.left - 3).square().sum().expand(len(batch))})
        apart = spoil * (self.left.detach() - self.right).square().sum()
        return Terms({"apart": apart.expand(len(batch))}, observed={"draw": torch.rand(len(batch), generator=context.generator)})

    def weights(self, context): return {"to_three": 100.0, "apart": context.live.scale}

    def after_step(self): self.log.append("after")


def test_groups_move_their_own_weights_at_their_own_pace():
    trainer = Trainer(DuelRun()).fit(7, progress=False)
    asked = [entry if entry == "after" else entry[:2] for entry in trainer.model.log]
    assert asked[:6] == [(0, "left"), (0, "right"), "after", (1, "left"), "after", (2, "left")]
    assert [entry[1] for entry in asked if entry[0] == 3] == ["left", "right"]
    first, second, _, third = trainer.model.log[:4]
    assert torch.equal(first[2], second[2])  # nobody moves before all gradients are taken
    assert abs((third[2] - first[2]).norm() - 0.1 * 0.5) < 1e-6  # SGD's first step: rate times the clipped norm
    assert torch.allclose((third[3] - first[3]).abs(), torch.full((4,), 0.1 * 0.5), atol=1e-5)  # Adam's first step: its rate
    curves = trainer.snapshot().curves.values
    assert {"to_three", "apart", "draw", "loss_left", "loss_right", "gradient_norm_left", "gradient_norm_right"} == set(curves)
    assert (np.isfinite(curves["loss_right"]).tolist() == [True, False, False, True, False, False, True]
            and np.isfinite(curves["loss_left"]).all())
    # as it was before clipping
    assert curves["gradient_norm_left"][0] > 100 and abs(curves["loss_left"][0] - 100 * curves["to_three"][0]) < 1e-2
    trainer.set(scale=5.0, learning_rate=0.01).fit(2000, progress=False)
    assert (trainer.model.left - 3).abs().max() < 0.05 and (trainer.model.right - trainer.model.left).abs().max() < 0.1


@pytest.mark.parametrize("bad", ["left", "right"])
def test_no_group_moves_when_any_is_not_finite(bad):
    trainer = Trainer(DuelRun()).fit(3, progress=False)
    before, trainer.model.bad = state_of(trainer), bad
    for _ in range(2):  # trying again moves nothing either
        with pytest.raises(NonFiniteStep, match=f"`{'to_three' if bad == 'left' else 'apart'}` must stay finite"):
            trainer.fit(1, progress=False)
        assert same(state_of(trainer), before)


@pytest.mark.parametrize("clip, factor", [(None, None), (1e-3, 1e-3)])
def test_clipping_bounds_the_first_step(mean, clip, factor):
    trainer = mean({"optimiser": "sgd", "clip": clip, "learning_rate": 0.1}).fit(1, progress=False)
    norm = trainer.snapshot().curves.values["gradient_norm"][0]
    assert norm > 0.01
    assert abs(trainer.model.level.norm() - 0.1 * (factor or norm)) < 1e-4 * norm


def test_terms_are_per_example_and_weights_name_them(mean, unchecked):
    for values in ({"a": torch.tensor(1.0)}, {"a": torch.zeros(3), "b": torch.zeros(4)}, {"a": torch.zeros(3, 2)}):
        with pytest.raises(ValueError, match="one number per example"): Terms(values)
    trainer = mean().fit(2, progress=False)
    before = state_of(trainer)
    trainer.model.weights = lambda context: {"square": 1.0}
    with pytest.raises(ValueError, match="`weights` must name the terms square, pull: got square. Give each term one weight."):
        trainer.fit(1, progress=False)
    trainer.model.losses = lambda batch, context: Terms({"square": (batch.x - trainer.model.level).square().mean(),
                                                         "pull": torch.tensor(0.0)})
    with pytest.raises(ValueError, match="one number per example"): trainer.fit(1, progress=False)
    assert same(state_of(trainer)["model"], before["model"]) and trainer.step_count == 2


# No waiting for the device ------------------------------------------------------------------------------------------

class Reads(TorchDispatchMode):
    "Counts operations that wait for a device: a number read from a tensor, or a tensor moved to the host."
    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = function.__name__.split(".")[0]
        if name in ("_local_scalar_dense", "_to_copy", "is_nonzero", "item", "equal", "nonzero"): self.found.append(name)
        return function(*args, **(kwargs or {}))


def test_writing_curves_reads_nothing_until_a_block_is_full():
    with Reads() as reads: torch.tensor([1.0]).sum().item(), bool(torch.ones(()) > 0), torch.ones(2).double()
    assert len(reads.found) == 3  # the counter sees what waits
    curves, numbers = CurveBuffer(block=64), {"a": torch.tensor(1.0), "b": torch.tensor(2.0)}
    with Reads() as reads:
        for at in range(63): curves.write(at, numbers)
    assert reads.found == []
    with Reads() as reads: curves.write(63, numbers)
    assert reads.found == ["_to_copy"]  # one transfer for the whole block


class Elsewhere:
    "A generator that says it is not on the CPU, as a GPU's does."
    def __init__(self, real): self.real, self.device = real, torch.device("cuda")

    def manual_seed(self, seed): return self.real.manual_seed(seed)


def away(run=MeanRun()):
    "A session that takes the path of a device whose numbers must not be waited for."
    session = new_session(run)
    session.generator, losses = Elsewhere(session.generator), session.model.losses
    session.model.losses = lambda batch, context: losses(batch, replace(context, generator=context.generator.real))
    return session


def test_a_step_on_a_device_reads_nothing(unchecked):
    session = away()
    live = Live(session.run)
    step(session, live)  # the optimiser makes its state
    session.batches.rows(3)
    with Reads() as reads:
        for _ in range(3): step(session, live)
    assert [r for r in reads.found if r != "_to_copy"] == []  # a copy is one of the images' types, never of a number


def test_on_a_device_a_bad_step_leaves_the_weights_and_is_named_when_read(unchecked):
    session, healthy = away(MeanRun().replace(poison=5)), away()
    live = Live(session.run)
    for _ in range(5): step(healthy, live)
    for _ in range(9): step(session, live)  # nobody looked yet
    assert torch.equal(session.model.level, healthy.model.level)
    session.curves.fetch()
    with pytest.raises(NonFiniteStep, match="`pull` must stay finite: got NaN or infinity at step 5"): step(session, live)


# Checkpoints --------------------------------------------------------------------------------------------------------

def cut_off(path): path.write_bytes(path.read_bytes()[:-100])


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def rewritten(change):
    "A file whose hash is right and whose content is not ours."
    return lambda path: save_checkpoint(change(load_checkpoint(path)), path)


def moments_of(state, **changes):
    return state | {"optimisers": [{**o, "state": {k: v | changes for k, v in o["state"].items()}} for o in state["optimisers"]]}


DAMAGE = {
    "truncated": (cut_off, "undamaged checkpoint"), "flipped": (flipped, "undamaged checkpoint"),
    "gone": (lambda p: p.unlink(), "not there"),
    "foreign": (lambda p: torch.save({"model": {}}, p), "checkpoint of this package"),
    "empty": (lambda p: p.write_bytes(b""), "checkpoint of this package"),
    "no optimisers": (rewritten(lambda s: {k: v for k, v in s.items() if k != "optimisers"}), "got one without optimisers"),
    "one key more": (rewritten(lambda s: s | {"extra": 1}), "got one also extra"),
    "step as text": (rewritten(lambda s: s | {"step": "40"}), "`step` must be a whole number of at least 0: got '40'"),
    "other dtype": (rewritten(lambda s: s | {"model": {k: v.double() for k, v in s["model"].items()}}), "torch.float64"),
    "other shape": (rewritten(lambda s: s | {"model": {k: v[..., :2] for k, v in s["model"].items()}}),
                    "`model` must be of this structure"),
    "other names": (rewritten(lambda s: s | {"model": {f"a.{k}": v for k, v in s["model"].items()}}), "`model` must be of this structure"),
    "too few optimisers": (rewritten(lambda s: s | {"optimisers": []}), "`optimisers` must hold one state for each of mean: got 0"),
    "other moments": (rewritten(lambda s: moments_of(s, exp_avg=torch.zeros(3))), "`optimisers of mean` must be of this structure"),
    "text moments": (rewritten(lambda s: moments_of(s, step="many")), "`optimisers of mean` must be of this structure"),
    "other curves": (rewritten(lambda s: s | {"history": {"stride": 1, "columns": {"loss": torch.zeros(3)}}}), "`history` must hold"),
    "no settings": (rewritten(lambda s: s | {"settings": 5}), "must be a trainer's checkpoint"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_checkpoint_that_is_not_ours_changes_nothing_and_the_one_before_it_is_used(mean, tmp_path, kind):
    damage, sentence = DAMAGE[kind]
    first = mean(folder=tmp_path).fit(20, progress=False)
    at_twenty = state_of(first)
    first.fit(20, progress=False)
    path = first.checkpoints.path(first.run)
    damage(path)
    other = mean(folder=tmp_path / "other").fit(3, progress=False)
    before = state_of(other)
    with pytest.raises(ValueError, match=sentence): other.resume(path)
    assert same(state_of(other), before) and other.notice == ""
    later = mean(folder=tmp_path).resume()
    assert same(state_of(later), at_twenty) and "The one before it was loaded." in later.notice
    later.fit(1, progress=False)
    assert same(state_of(mean(folder=tmp_path).resume()), state_of(later))  # and the next one is written beside it
    damage(path)
    damage(path.with_suffix(".previous"))
    with pytest.raises(ValueError, match=sentence): mean(folder=tmp_path).resume()


def test_a_checkpoint_of_other_settings_is_refused(mean, nem, tmp_path):
    trainer = mean({"side": 6, "seed": 3}, folder=tmp_path / "six").fit(5, progress=False)
    path, other = trainer.checkpoints.path(trainer.run), mean(folder=tmp_path / "four").fit(3, progress=False)
    before = state_of(other)
    with pytest.raises(ValueError, match="`path` must be of this structure: got other model.side, train.seed. Rebuild with those "
                                         "settings first."):
        other.resume(path)
    assert same(state_of(other), before)
    assert other.rebuild(side=6, seed=3).resume(path).step_count == 5
    before, foreign = state_of(other), nem({}, tmp_path / "nem").fit(1, progress=False)
    with pytest.raises(ValueError, match="`class` must be MeanRun: got NEMRun. Load it with the class that wrote it."):
        other.resume(foreign.checkpoints.path(foreign.run))
    assert same(state_of(other), before)


def test_a_kill_at_any_moment_of_writing_leaves_a_checkpoint(mean, tmp_path, monkeypatch):
    for calls_that_work in range(3):
        trainer = mean(folder=tmp_path / str(calls_that_work)).fit(10, progress=False)
        trainer.fit(5, progress=False)  # a first and a previous file
        real, done = os.replace, []

        def die(source, target, real=real, done=done, works=calls_that_work):
            if len(done) == works: raise KeyboardInterrupt
            done.append(target)
            return real(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", die)
            trainer.set(pull=1.0)
            with pytest.raises(KeyboardInterrupt): trainer.checkpoint()
        assert mean(folder=tmp_path / str(calls_that_work)).resume().step_count == 15


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_full_disk_does_not_stop_the_training(mean, tmp_path, monkeypatch, broken):
    trainer = mean(folder=tmp_path).fit(20, progress=False)
    saved = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

    def full(*_): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, broken, full)
        trainer.fit(45, progress=False)
        assert trainer.step_count == 65 and trainer.state == "paused" and trainer.error is None
        assert trainer.notice.startswith("no checkpoint written, training goes on: ") and "No space left" in trainer.snapshot().notice
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == saved  # the last good one, and no half of another
    assert mean(folder=tmp_path).resume().step_count == 20
    trainer.fit(15, progress=False)
    assert mean(folder=tmp_path).resume().step_count == 80


def test_a_folder_that_vanishes_does_not_stop_the_training(mean, tmp_path):
    folder = tmp_path / "runs" / "mean"
    trainer = mean(folder=folder).start()
    until(lambda: list(folder.glob("*.ckpt")))
    folder.rename(tmp_path / "elsewhere")
    until(lambda: "no checkpoint written" in trainer.notice)
    at = trainer.step_count
    until(lambda: trainer.step_count > at + 40)
    assert trainer.state == "running" and trainer.error is None
    (tmp_path / "elsewhere").rename(folder)
    until(lambda: trainer.notice == "" and trainer.state == "running")  # a later checkpoint was written: the cause is over, and its sentence goes
    trainer.pause()
    assert mean(folder=folder).resume().step_count == trainer.step_count


def test_live_changes_come_back_with_the_run_and_go_with_a_rebuild(mean, tmp_path):
    "Whoever draws a curve needs to know where another unit began, also after the kernel was started anew."
    first = mean(journal=tmp_path / "runs").fit(10, progress=False)
    first.set(pull=0.5)
    first.fit(10, progress=False)
    assert [(c.step, c.name, c.old, c.new) for c in first.changes] == [(10, "pull", 0.0, 0.5)]
    again = mean(journal=tmp_path / "runs")
    again.load(first.recorder.id, go_on=True)
    assert [(c.step, c.name, c.old, c.new) for c in again.changes] == [(10, "pull", 0.0, 0.5)]
    again.rebuild(side=8)
    assert again.changes == []


@pytest.mark.parametrize("where", ["file", "below a file"])
def test_a_folder_that_cannot_be_written_is_refused_before_anything_is_built(tmp_path, where):
    (tmp_path / "file").write_text("mine")
    folder, built = tmp_path / "file" if where == "file" else tmp_path / "file" / "runs", []
    with pytest.raises(ValueError, match="`folder` must be writable: got .*file.*Choose another folder, or None for no checkpoints."):
        Trainer(MeanRun(), folder=folder, build=lambda run, device: built.append(run))
    assert built == [] and (tmp_path / "file").read_text() == "mine"


def test_without_a_folder_nothing_is_written_and_asking_says_so(mean, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = mean().fit(45, progress=False)
    for ask in (trainer.checkpoint, trainer.resume):
        with pytest.raises(ValueError, match="`folder` must be given for checkpoints: got None. Build the trainer with journal="): ask()
    assert list(tmp_path.iterdir()) == []


# Memory -------------------------------------------------------------------------------------------------------------

def test_memory_is_flat_over_steps_and_pictures(mean, unchecked):
    trainer = mean({"check_every": 10**6, "checkpoint_every": 10**6})

    def some(steps):
        for _ in range(steps // 20):
            trainer.start(20)
            trainer.snapshot()
            trainer.wait()
        gc.collect()

    some(600)
    tracemalloc.start()
    try:
        some(200)
        before, count = tracemalloc.get_traced_memory()[0], len(gc.get_objects())
        some(1000)
        grown, more = tracemalloc.get_traced_memory()[0] - before, len(gc.get_objects()) - count
    finally: tracemalloc.stop()
    assert grown < 50_000 and more < 500, (grown, more)  # one tensor kept per step would be more than 70 kB and 1,000 objects


def test_records_are_thinned_and_not_dropped(mean):
    trainer = mean({"check_every": 1}).fit(500, progress=False)
    steps = [m.step for m in trainer.snapshot().measurements]
    assert len(steps) <= 400 and steps[0] == 0 and steps[-1] == 500 and steps == sorted(set(steps))


def test_a_snapshot_that_is_being_taken_when_time_is_over_is_none(monkeypatch):
    "A future that runs cannot be cancelled, and `cancel` says False: on a slow machine the panel drew that False as a snapshot."
    trainer, running = Trainer(MeanRun()), Future()
    assert running.set_running_or_notify_cancel()
    monkeypatch.setattr(trainer, "submit", lambda command: running)
    assert trainer.snapshot(timeout=0.01) is None
