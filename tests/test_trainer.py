"""The trainer: one seed gives one result however it is run and interrupted, changes are in force at their step, and no failure costs what was trained."""
import errno
import gc
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from latentlab.core.settings import Settings, setting
from latentlab.core.terms import Parts, Player, Terms
from latentlab.families.nem.experiment import NEMRun
from latentlab.train.example import Mean, MeanRun
from latentlab.train.history import History
from latentlab.train.rig import NonFiniteStep, Rig, advance
from latentlab.train.settings import TrainSettings
from latentlab.train.trainer import Trainer
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

TINY = NEMRun().replace(images=64, batch=8, encoder="untrained", layers=2, width=4, device="cpu", check_every=8, checkpoint_every=10)


@pytest.fixture(scope="module")
def fixed_parts():
    "What is slow to build and never changes: images and encoder are read once, every trainer gets a model of its own."
    from latentlab.data.images import load
    from latentlab.nn.encoders import load_encoder
    return load("fashion-mnist", "train", limit=104), load_encoder("untrained:fashion-mnist")


@pytest.fixture
def nem(fixed_parts):
    "Makes trainers of a tiny masker."
    made = []

    def make(changes=None, folder=None):
        images, encoder = fixed_parts
        made.append(Trainer(TINY.replace(changes or {}), folder=folder, build=lambda run, device: run.build(device, images=images, encoder=encoder)))
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
    return {k: v for k, v in frozen(trainer._rig.state()).items() if k != "seconds"}


def same(a, b):
    "Equal to the last bit, at any depth; NaN equals NaN."
    if isinstance(a, torch.Tensor): return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a.nan_to_num(7.0), b.nan_to_num(7.0))
    if isinstance(a, dict): return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(same, a, b))
    return a == b


def until(condition, seconds=10.0):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.002)


# One seed, one result -----------------------------------------------------------------------------------------------

def test_a_seed_decides_weights_optimiser_and_curves(nem):
    first, again, other = (nem({"seed": seed}).fit(20, progress=False) for seed in (0, 0, 1))
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


@pytest.mark.parametrize("fill", ["blur", "mixed"])
def test_thread_pictures_checks_and_pieces_change_nothing(nem, fill):
    plain = state_of(nem({"fill": fill}).fit(24, progress=False))
    threaded = nem({"fill": fill}).start(24)
    shown = 0
    while threaded.state == "running": shown += threaded.snapshot() is not None
    assert shown and same(state_of(threaded.wait()), plain)
    pieces = nem({"fill": fill})
    for n in (1, 7, 3): pieces.fit(n, progress=False).measure()
    pieces.step(5).wait().snapshot()
    pieces.step(2).pause()  # within its two steps or after them
    pieces.stop().fit(24 - pieces.step_count, progress=False)
    assert same(state_of(pieces), plain)


def test_how_often_it_is_checked_and_saved_changes_no_weight(nem, tmp_path):
    often, seldom = nem({"check_every": 1, "checkpoint_every": 1}, tmp_path).fit(12, progress=False), nem({"check_every": 1000}).fit(12, progress=False)
    assert len(often._rig.measures) == 13 and len(seldom._rig.measures) == 1
    assert same(state_of(often)["model"], state_of(seldom)["model"]) and same(state_of(often)["optimisers"], state_of(seldom)["optimisers"])


def test_pausing_at_odd_moments_loses_no_step(mean):
    trainer, plain = mean(), mean()
    for i in range(40):
        trainer.start()
        if i % 3 == 0: time.sleep(0.001)
        if i % 2: trainer.snapshot()
        trainer.pause()
        at = trainer.step_count
        time.sleep(0.001)
        assert trainer.step_count == at and trainer.state == "paused"
    assert same(state_of(trainer)["model"], state_of(plain.fit(trainer.step_count, progress=False))["model"])


# Resume -------------------------------------------------------------------------------------------------------------

CHILD = """
import sys, torch
torch.set_num_threads(1)
from latentlab.data.images import load
from latentlab.core.settings import from_json
from latentlab.families.nem.experiment import NEMRun
from latentlab.nn.encoders import load_encoder
from latentlab.train.trainer import Trainer
run, folder, at = from_json(NEMRun, sys.argv[1]), sys.argv[2], int(sys.argv[3])
images, encoder = load("fashion-mnist", "train", limit=104), load_encoder("untrained:fashion-mnist")
trainer = Trainer(run, folder=folder, build=lambda run, device: run.build(device, images=images, encoder=encoder))
terms, calls = trainer.model.terms, []
def slow(x, *, live, generator):
    calls.append(1)
    if len(calls) == at:
        print("inside", flush=True)
        sys.stdin.readline()
    return terms(x, live=live, generator=generator)
trainer.model.terms = slow
if sys.argv[4] == "thread": trainer.start().wait()
else:
    try: trainer.fit(1000, progress=False)
    except KeyboardInterrupt: sys.exit(33)
"""


SIGNALS = {  # How it is sent, how the process ends, and the step of its last checkpoint
    "ctrl-c": (signal.SIGINT, "caller", 33, 17),  # the step in progress is finished and saved
    "kill": (signal.SIGKILL, "caller", -9, 10), "kill-thread": (signal.SIGKILL, "thread", -9, 10),
}


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    "Processes that were sent a signal in the middle of their 17th step: kind -> folder and exit status."
    from latentlab.core.settings import to_json
    folder, children = tmp_path_factory.mktemp("interrupted"), {}
    for kind, (_, where, _, _) in SIGNALS.items():
        command = [sys.executable, "-c", CHILD, to_json(TINY), str(folder / kind), "17", where]
        children[kind] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    ended = {}
    for kind, child in children.items():
        with child:
            assert child.stdout.readline() == "inside\n"
            child.send_signal(SIGNALS[kind][0])
            if kind == "ctrl-c": child.communicate("\n", timeout=30)
            ended[kind] = folder / kind, child.wait(30)
    return ended


@pytest.mark.parametrize("kind", SIGNALS)
def test_an_interrupted_process_goes_on_to_the_last_bit(nem, interrupted, kind):
    _, _, code, step = SIGNALS[kind]
    folder, ended = interrupted[kind]
    assert ended == code
    trainer, whole = nem(folder=folder).resume(), nem()
    assert trainer.step_count == step
    trainer.fit(30 - step, progress=False)
    assert same(state_of(trainer), state_of(whole.fit(30, progress=False)))


def test_ctrl_c_stops_between_two_steps_and_says_so(nem, tmp_path):
    trainer, terms = nem(folder=tmp_path), None
    terms = trainer.model.terms

    def interrupt(x, *, live, generator):
        if trainer.step_count == 6: signal.raise_signal(signal.SIGINT)
        return terms(x, live=live, generator=generator)

    trainer.model.terms, before = interrupt, signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt): trainer.fit(20, progress=False)
    assert (trainer.step_count, trainer.state, trainer.notice, trainer.error) == (7, "paused", "interrupted by the keyboard", None)
    assert signal.getsignal(signal.SIGINT) is before
    saved = nem(folder=tmp_path).resume()
    assert saved.step_count == 7 and same(state_of(saved), state_of(trainer))


def test_hot_changes_are_part_of_what_is_resumed(nem, tmp_path):
    whole, first = nem(), nem(folder=tmp_path)
    for trainer in (whole, first): trainer.fit(6, progress=False).set(kl_scale=0.3, fill="mean", learning_rate=1e-3).fit(6, progress=False)
    later = nem(folder=tmp_path).resume()
    assert later.run.model.kl_scale == 0.3 and later.run.model.fill == "mean" and later._live.values["learning_rate"] == 1e-3
    assert same(state_of(later.fit(9, progress=False)), state_of(whole.fit(9, progress=False)))


@pytest.mark.parametrize("optimiser", ["adamw", "adam", "sgd"])
def test_every_optimiser_learns_and_resumes(mean, tmp_path, optimiser):
    changes = {"optimiser": optimiser, "noise": 0.0, "batch": 64, "clip": None}
    trainer, whole = mean(changes, folder=tmp_path).fit(30, progress=False), mean(changes).fit(400, progress=False)
    trainer = mean(changes, folder=tmp_path).resume().fit(370, progress=False)
    assert same(state_of(trainer), state_of(whole))
    assert (whole.model.level - whole.parts.images.mean(0)).abs().max() < 0.02  # the minimum is known: the mean of 64 images, approached by constant steps


# Changes ------------------------------------------------------------------------------------------------------------

def recording(trainer):
    "The live value of `pull` that each step saw, in order."
    terms, seen = trainer.model.terms, []

    def record(x, *, live, generator):
        seen.append((trainer.step_count, live.values["pull"], live.pull.item(), trainer.model.weights(live)["pull"].item()))
        return terms(x, live=live, generator=generator)

    trainer.model.terms = record
    return seen


def test_a_change_is_recorded_and_in_force_at_the_next_step(mean):
    trainer = mean()
    seen = recording(trainer)
    for value in (0.0, 1.5, 1.5, 4.0): trainer.set(pull=value).fit(3, progress=False)
    assert [(c.step, c.name, c.old, c.new) for c in trainer.changes] == [(3, "pull", 0.0, 1.5), (9, "pull", 1.5, 4.0)]  # setting the same again is no change
    assert [s for s, *_ in seen] == list(range(12))
    for step, plain, tensor, weight in seen: assert plain == tensor == weight == (0.0 if step < 3 else 1.5 if step < 9 else 4.0)
    assert trainer.run.model.pull == 4.0


def test_learning_rate_is_hot(mean):
    trainer = mean({"optimiser": "sgd", "noise": 0.0}).fit(3, progress=False)
    before = frozen(trainer.model.level)
    trainer.set(learning_rate=1e-5).fit(1, progress=False)
    slow = (trainer.model.level - before).abs().max()
    trainer.set(learning_rate=0.1).fit(1, progress=False)
    assert (trainer.model.level - before).abs().max() > 1000 * slow
    assert trainer._rig.optimisers[0].param_groups[0]["lr"] == 0.1


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
    assert (trainer.run.model.pull, trainer.run.train.learning_rate) == (15.0, 0.01 + 14 / 1000)
    assert trainer._live.values["pull"] == 15.0 and trainer.error is None
    for name, values in jobs:  # none was lost and each begins where the one before ended
        moves = [c for c in trainer.changes if c.name == name]
        assert [c.new for c in moves] == values and [c.old for c in moves[1:]] == values[:-1]


def test_a_refused_change_changes_nothing(mean):
    trainer = mean().fit(2, progress=False)
    before = trainer.run, trainer._live, list(trainer.changes), trainer.version, state_of(trainer)
    for wrong in ({"pull": 1.0, "learning_rate": 5.0}, {"pull": 1.0, "noise": 0.2}, {"pull": 1.0, "push": 1.0}, {"pull": -1.0}):
        with pytest.raises(ValueError): trainer.set(wrong)
    assert trainer.run is before[0] and trainer._live is before[1] and (trainer.changes, trainer.version) == before[2:4] and same(state_of(trainer), before[4])
    with pytest.raises(ValueError, match=r"`noise` must be a live setting: got one of kind build. Use rebuild\(noise=...\) instead."): trainer.set(noise=0.2)


# Rebuild ------------------------------------------------------------------------------------------------------------

def test_a_rebuild_while_running_goes_on_running(mean):
    trainer = mean().start()
    until(lambda: trainer.step_count > 20)
    old = trainer.model
    trainer.rebuild(side=6)
    until(lambda: trainer.model is not old and trainer.step_count > 20)
    assert trainer.state == "running" and trainer.model.level.shape[-1] == 6 and trainer.error is None
    fresh = mean({"side": 6}).fit(trainer.pause().step_count, progress=False)
    assert same(state_of(trainer), state_of(fresh))  # from step 0, with nothing of the old run in it


def test_a_rebuild_equals_a_fresh_trainer(nem):
    trainer = nem().fit(5, progress=False).rebuild(mask_bias=-1.0, seed=4)
    assert trainer.step_count == 0 and len(trainer.snapshot().curves.steps) == 0
    assert same(state_of(trainer.fit(8, progress=False)), state_of(nem({"mask_bias": -1.0, "seed": 4}).fit(8, progress=False)))


FULL = [torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB"), RuntimeError("cuDNN error"), MemoryError(),
        ValueError("`layers` must be less")]


def failing(error):
    "A build that works once and then fails."
    built = []

    def build(run, device):
        built.append(run)
        if len(built) > 1: raise error
        return run.build(device)

    return build


@pytest.mark.parametrize("error", FULL, ids=lambda e: type(e).__name__)
def test_a_rebuild_that_fails_keeps_the_old_model_training(mean, error):
    trainer, plain = mean(build=failing(error)).start(), mean()
    until(lambda: trainer.step_count > 5)
    model, run = trainer.model, trainer.run
    trainer.rebuild(side=8)
    until(lambda: trainer.outcomes)
    at = trainer.step_count
    until(lambda: trainer.step_count > at + 20)
    assert trainer.outcomes == [f"not rebuilt, the old model stays: {error}"] and trainer.notice == trainer.outcomes[0]
    assert trainer.state == "running" and trainer.error is None  # training has not failed
    assert trainer.model is model and trainer.run is run
    assert same(state_of(trainer.pause()), state_of(plain.fit(trainer.step_count, progress=False)))


@pytest.mark.parametrize("error", FULL[:2], ids=lambda e: type(e).__name__)
def test_a_rebuild_that_fails_in_the_caller_raises_and_changes_nothing(mean, error):
    trainer = mean(build=failing(error)).fit(7, progress=False)
    before, run = state_of(trainer), trainer.run
    with pytest.raises(type(error)) as caught: trainer.rebuild(side=8)
    assert caught.value is error and trainer.run is run and same(state_of(trainer), before)
    assert trainer.fit(3, progress=False).step_count == 10


# Errors -------------------------------------------------------------------------------------------------------------

class Spoiled(Exception): "Of this test alone."


def test_an_error_in_a_model_is_kept_whole(mean, tmp_path):
    trainer = mean(folder=tmp_path)
    terms = trainer.model.terms

    def break_at_nine(x, *, live, generator):
        if trainer.step_count == 9: raise Spoiled("in step nine")
        return terms(x, live=live, generator=generator)

    trainer.model.terms = break_at_nine
    with pytest.raises(Spoiled, match="in step nine") as caught: trainer.start().wait()
    assert caught.value is trainer.error and any(f.name == "break_at_nine" for f in caught.traceback)
    until(lambda: not trainer.busy)
    assert (trainer.state, trainer.notice, trainer.step_count) == ("failed", "Spoiled: in step nine", 9)
    assert trainer.snapshot().notice == trainer.notice and np.isfinite(trainer.snapshot().views["level"]).all()
    assert mean(folder=tmp_path).resume().step_count == 9  # nothing of what was trained is lost
    trainer.model.terms = terms
    assert same(state_of(trainer.start(3).wait()), state_of(mean().fit(12, progress=False)))


class Sick(Mean):
    "Goes bad at step 5 (the sixth), in the place that a test names."
    where = "square"

    def terms(self, x, *, live, generator):
        found, self.calls = super().terms(x, live=live, generator=generator), self.calls
        values, watched = dict(found), {"watched": x.mean((1, 2, 3)).detach()}
        if self.calls > 5:
            bad = float("inf") if self.where.endswith("infinite") else float("nan")
            root = (self.level - self.level.detach()).square().sum().sqrt()  # 0, with an infinite slope
            if self.where == "gradient": values["square"] = values["square"] + 0 * root
            elif self.where == "watched": watched["watched"] = watched["watched"] * bad
            else: values[self.where.split()[0]] = values[self.where.split()[0]] + bad
        return Terms(values, observed=watched)


@pytest.mark.parametrize("where, name", [("square", "square"), ("pull", "pull"), ("square infinite", "square"), ("gradient", "gradient_norm")])
@pytest.mark.parametrize("threaded", [False, True])
def test_a_step_that_is_not_finite_is_stopped_by_name_with_the_weights_before_it(mean, where, name, threaded):
    def build(run, device):
        parts = run.build(device)
        model = Sick(run.model, parts.images.shape[1:])
        model.where = where
        return replace(parts, model=model)

    trainer, healthy = mean(build=build), mean().fit(5, progress=False)
    with pytest.raises(NonFiniteStep, match=f"`{name}` must stay finite: got NaN or infinity at step 5. Lower `learning_rate`"):
        trainer.start().wait() if threaded else trainer.fit(20, progress=False)
    until(lambda: not trainer.busy)
    assert trainer.state == "failed" and trainer.step_count == 5 and isinstance(trainer.error, NonFiniteStep)
    assert torch.equal(trainer.model.level, healthy.model.level) and same(state_of(trainer)["optimisers"], state_of(healthy)["optimisers"])


def test_an_observed_term_that_goes_bad_is_named_when_it_is_read(mean):
    def build(run, device):
        parts = run.build(device)
        model = Sick(run.model, parts.images.shape[1:])
        model.where = "watched"
        return replace(parts, model=model)

    trainer = mean({"check_every": 10}, build=build)
    with pytest.raises(NonFiniteStep, match="`watched` must stay finite: got NaN or infinity at step 5"): trainer.fit(20, progress=False)
    assert trainer.step_count == 10


# Players, clipping, terms -------------------------------------------------------------------------------------------

@dataclass(frozen=True, kw_only=True)
class DuelRun(Settings):
    scale: float = setting(1.0, kind="live", low=0, high=10, reason="to be moved")
    train: TrainSettings = field(default_factory=lambda: TrainSettings(learning_rate=0.1, batch=8, weight_decay=0.0, device="cpu", optimiser="sgd", clip=0.5))

    def build(self, device):
        images = torch.rand(32, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        return Parts(model=Duel(self), images=images, probe=images[:8], watch=images[:8])


@dataclass(frozen=True)
class Nothing:
    def figures(self): return {}


class Duel(nn.Module):
    "Two players: `left` goes to 3 whatever `right` does, `right` runs to `left`."

    def __init__(self, settings):
        super().__init__()
        self.settings, self.checks, self.log = settings, (), []
        self.left, self.right = nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(2))

    def players(self):
        return Player(name="left", parameters=(self.left,), terms=("to_three",)), Player(name="right", parameters=(self.right,), terms=("apart",))

    def terms(self, x, *, live, generator):
        self.log.append((frozen(self.left), frozen(self.right)))
        to_three, apart = (self.left - 3).square().sum(), (self.left.detach() - self.right).square().sum()
        return Terms({"to_three": to_three.expand(len(x)), "apart": apart.expand(len(x))}, observed={"draw": torch.rand(len(x), generator=generator)})

    def weights(self, live): return {"to_three": 100.0, "apart": live.scale}

    def views(self, x, *, live, generator): return {}

    def probe(self, x, *, live, generator): return Nothing()

    def after_step(self): self.log.append("after")


def test_players_move_their_own_weights_in_turn_and_are_clipped_apart():
    trainer = Trainer(DuelRun()).fit(3, progress=False)
    log = trainer.model.log
    assert [entry == "after" for entry in log[:6]] == [False, False, True] * 2
    (left0, right0), (left1, right1) = log[0], log[1]
    assert torch.equal(right0, right1) and not torch.equal(left0, left1)  # the second player sees the first one's move
    assert abs((left1 - left0).norm() - 0.1 * 0.5) < 1e-6  # SGD's first step: rate times the clipped norm
    curves = trainer.snapshot().curves.values
    assert {"to_three", "apart", "draw", "loss_left", "loss_right", "gradient_norm_left", "gradient_norm_right"} == set(curves)
    assert curves["gradient_norm_left"][0] > 100 and abs(curves["loss_left"][0] - 100 * curves["to_three"][0]) < 1e-2  # as it was before clipping
    trainer.set(scale=5.0, learning_rate=0.01).fit(600, progress=False)
    assert (trainer.model.left - 3).abs().max() < 0.05 and (trainer.model.right - trainer.model.left).abs().max() < 0.05


@pytest.mark.parametrize("clip, factor", [(None, None), (1e-3, 1e-3), (1e6, None)])
def test_clipping_bounds_the_first_step(mean, clip, factor):
    trainer = mean({"optimiser": "sgd", "clip": clip, "learning_rate": 0.1}).fit(1, progress=False)
    norm = trainer.snapshot().curves.values["gradient_norm"][0]
    assert norm > 0.01
    assert abs(trainer.model.level.norm() - 0.1 * (factor or norm)) < 1e-4 * norm


@pytest.mark.parametrize("values, rule", [
    ({"a": torch.tensor(1.0)}, "one number per example"), ({"a": torch.zeros(3), "b": torch.zeros(4)}, "one number per example"),
    ({"a": torch.zeros(3, 2)}, "one number per example"), ({}, "at least one term"),
])
def test_terms_are_per_example(values, rule, unchecked):
    with pytest.raises(ValueError, match=rule): Terms(values)


def test_terms_that_are_reduced_stop_the_run_and_keep_it(mean, unchecked):
    trainer = mean().fit(2, progress=False)
    before = state_of(trainer)
    trainer.model.terms = lambda x, *, live, generator: Terms({"square": (x - trainer.model.level).square().mean(), "pull": torch.tensor(0.0)})
    with pytest.raises(ValueError, match="one number per example"): trainer.fit(1, progress=False)
    assert same(state_of(trainer)["model"], before["model"]) and trainer.step_count == 2


def test_weights_must_name_the_terms(mean):
    trainer = mean()
    trainer.model.weights = lambda live: {"square": 1.0}
    with pytest.raises(ValueError, match="`weights` must name the terms square, pull: got square. Give each term one weight."): trainer.fit(1, progress=False)


@pytest.mark.parametrize("model, missing", [(nn.Linear(2, 2), "settings, checks, players, terms, weights, views, probe, after_step"), (object(), "players")])
def test_a_model_that_is_not_trainable_is_refused(mean, model, missing, unchecked):
    with pytest.raises(ValueError, match=f"`model` must be Trainable: got {type(model).__name__} without .*{missing}.*Add them"):
        mean(build=lambda run, device: replace(run.build(device), model=model))


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


def test_the_counter_sees_what_waits():
    with Reads() as reads: torch.tensor([1.0]).sum().item(), bool(torch.ones(()) > 0), torch.ones(2).double()
    assert len(reads.found) == 3


def test_writing_history_reads_nothing_until_a_block_is_full():
    history, numbers = History(block=64), {"a": torch.tensor(1.0), "b": torch.tensor(2.0)}
    with Reads() as reads:
        for step in range(63): history.write(step, numbers)
    assert reads.found == []
    with Reads() as reads: history.write(63, numbers)
    assert reads.found == ["_to_copy"]  # one transfer for the whole block


class Elsewhere:
    "A generator that says it is not on the CPU, as a GPU's does."
    def __init__(self, real): self.real, self.device = real, torch.device("cuda")

    def manual_seed(self, seed): return self.real.manual_seed(seed)


def away(run=MeanRun()):
    "A rig that takes the path of a device whose numbers must not be waited for."
    parts = run.build(torch.device("cpu"))
    rig = Rig(run, parts)
    rig.generator, terms = Elsewhere(rig.generator), rig.model.terms
    rig.model.terms = lambda x, *, live, generator: terms(x, live=live, generator=generator.real)
    return rig


def test_a_step_on_a_device_reads_nothing():
    from latentlab.core.settings import Live
    rig = away(MeanRun().replace(optimiser="adamw"))
    live = Live(rig.run)
    advance(rig, live)  # the optimiser makes its state
    rig.batches.rows(3)
    with Reads() as reads:
        for _ in range(3): advance(rig, live)
    assert [r for r in reads.found if r != "_to_copy"] == []  # a copy is one of the images' types, never of a number


def test_on_a_device_a_bad_step_leaves_the_weights_and_is_named_when_read():
    from latentlab.core.settings import Live
    rig, healthy = away(MeanRun().replace(poison=5)), away()
    live = Live(rig.run)
    for _ in range(5): advance(healthy, live)
    for _ in range(9): advance(rig, live)  # nobody looked yet
    assert torch.equal(rig.model.level, healthy.model.level)
    rig.history.fetch()
    with pytest.raises(NonFiniteStep, match="`pull` must stay finite: got NaN or infinity at step 5"): advance(rig, live)


# Checkpoints --------------------------------------------------------------------------------------------------------

def cut_off(path): path.write_bytes(path.read_bytes()[:-100])


def flipped(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


DAMAGE = {
    "truncated": (cut_off, "undamaged checkpoint"), "flipped": (flipped, "undamaged checkpoint"), "gone": (lambda p: p.unlink(), "not there"),
    "foreign": (lambda p: torch.save({"model": {}}, p), "checkpoint of this package"), "empty": (lambda p: p.write_bytes(b""), "checkpoint of this package"),
    "header": (lambda p: p.write_bytes(p.read_bytes()[:40]), "undamaged checkpoint"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_checkpoint_changes_nothing_and_the_one_before_it_is_used(mean, tmp_path, kind):
    damage, sentence = DAMAGE[kind]
    first = mean(folder=tmp_path).fit(20, progress=False)
    at_twenty = state_of(first)
    path = first.fit(20, progress=False).checkpoint_path()
    damage(path)
    other = mean(folder=tmp_path / "other").fit(3, progress=False)
    before = state_of(other)
    with pytest.raises(ValueError, match=f"`path` must be an? .*{sentence}"): other.resume(path)
    assert same(state_of(other), before) and other.notice == ""
    later = mean(folder=tmp_path).resume()
    assert same(state_of(later), at_twenty) and "The one before it was loaded." in later.notice
    damage(path.with_suffix(".previous"))
    with pytest.raises(ValueError, match=sentence): mean(folder=tmp_path).resume()


def test_a_checkpoint_of_other_settings_is_refused(mean, nem, tmp_path):
    path = mean({"side": 6, "seed": 3}, folder=tmp_path / "six").fit(5, progress=False).checkpoint_path()
    other = mean(folder=tmp_path / "four").fit(3, progress=False)
    before = state_of(other)
    with pytest.raises(ValueError, match="`path` must be of this structure: got other model.side, train.seed. Rebuild with those settings first."):
        other.resume(path)
    assert same(state_of(other), before)
    assert other.rebuild(side=6, seed=3).resume(path).step_count == 5
    before = state_of(other)
    foreign = nem({}, tmp_path / "nem").fit(1, progress=False).checkpoint_path()
    with pytest.raises(ValueError, match="`class` must be MeanRun: got NEMRun. Load it with the class that wrote it."): other.resume(foreign)
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
            trainer._rig.step = 15
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
        assert trainer.notice.startswith("no checkpoint written, training goes on: ") and "No space left" in trainer.notice
        assert trainer.snapshot().notice == trainer.notice
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == saved  # the last good one, and no half of another
    assert mean(folder=tmp_path).resume().step_count == 20
    trainer.fit(15, progress=False)
    assert mean(folder=tmp_path).resume().step_count == 80
    assert same(state_of(trainer), state_of(mean().fit(80, progress=False)))


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
    trainer.pause()
    assert mean(folder=folder).resume().step_count == trainer.step_count


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


# Refused while something runs ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("wrong, sentence", [
    (lambda t: t.fit(3), "`fit` must not run beside the thread: got a trainer that was started. Call stop"),
    (lambda t: t.resume(), "`resume` must not run beside the thread: got a trainer that was started. Call stop"),
    (lambda t: t.start(0), "`steps` must be at least 1: got 0. Use None"),
    (lambda t: t.rebuild(side=100), "`side` must be at most 64 px: got 100"),
    (lambda t: t.rebuild(device="cuda:77"), "`device` must be on this machine: got 'cuda:77'. Use auto or cpu"),
    (lambda t: t.rebuild(sides=3), "`sides` must be a field of MeanRun"),
])
def test_what_must_not_happen_to_a_running_trainer(mean, wrong, sentence):
    trainer = mean().start()
    with pytest.raises(ValueError, match=sentence): wrong(trainer)
    at = trainer.step_count
    until(lambda: trainer.step_count > at + 5)
    assert trainer.state == "running" and trainer.error is None and trainer.notice == "" and trainer.run == MeanRun()


def test_a_stopped_trainer_can_be_started_again(mean):
    trainer = mean().start(5).wait().stop()
    assert not trainer.busy
    trainer.start(5).wait()
    assert same(state_of(trainer), state_of(mean().fit(10, progress=False)))


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
    steps = [m.step for m in trainer.snapshot().measures]
    assert len(steps) <= 400 and steps[0] == 0 and steps[-1] == 500 and steps == sorted(set(steps))
