"""Several seeds stepped as one batched model: each run is what it is alone, and whatever cannot be batched is trained alone."""
from concurrent.futures import Future

import pytest
import torch
from latentlab.core.batch import Batch
from latentlab.core.terms import Terms
from latentlab.facade import make_trainer
from latentlab.families.hvae.experiment import HVAERun
from latentlab.journal.files import read_lines
from latentlab.journal.journal import Journal
from latentlab.journal.writer import newest_checkpoint
from latentlab.sweeps.plan import Plan
from latentlab.sweeps.sweep import Sweep
from latentlab.sweeps.workers import Outcome, WorkerDied, train_seeds
from latentlab.train import lockstep
from latentlab.train.checkpoint import load_checkpoint
from latentlab.train.example import Mean, MeanRun
from latentlab.train.lockstep import stack_that_pays, train_in_lockstep
from latentlab.train.session import step
from latentlab.train.stacked import NotStackable, Stack, try_out
from latentlab.train.trainer import Trainer
from torch import nn

SMALL = HVAERun().replace(hidden=(12, 12), layers=2, latents=(2, 2), points=400, batch=32, device="cpu", steps=20, check_every=20,
                          checkpoint_every=10, record_every=5)


@pytest.fixture(autouse=True)
def always(monkeypatch):
    "The choice is timed, and a test's machine is busy: together wherever it is possible."
    monkeypatch.setattr(lockstep, "LEAST_GAIN", 0.0)


def lines(journal, id): return [row for row in read_lines(journal.folder(id) / "metrics.jsonl").rows if "loss" in str(row)]


def doubled(run):
    "A run in float64: rounding no longer hides what is wrong."
    trainer = Trainer(run)
    trainer.model.double()
    batches = trainer.session.batches
    trainer.session.batches = type("Doubled", (), {"at": lambda _, at: Batch(x=batches.at(at).x.double())})()
    return trainer.session


@pytest.mark.parametrize("changes", [{}, {"objective": "iw", "samples": 3}, {"kind": "auxiliary", "layers": 1, "latents": (2,)},
                                     {"kind": "ladder"}, {"free_nats": 0.5, "warmup_steps": 10}, {"clip": 0.1, "optimiser": "sgd"},
                                     {"learning_rate": 0.02, "weight_decay": 0.1, "skips": True}])
def test_in_double_precision_each_run_is_what_it_is_alone(changes):
    runs = [SMALL.replace({"seed": seed, **changes}) for seed in (3, 4, 9)]
    live = Trainer(runs[0]).live
    together, alone = ([doubled(run) for run in runs] for _ in range(2))
    stack = Stack(together)
    assert try_out(stack, live).error < 1e-10
    for _ in range(12): stack.step(live)
    for one in alone:
        for _ in range(12): step(one, live)
    for a, b in zip(together, alone):
        for name, value in b.model.state_dict().items(): torch.testing.assert_close(a.model.state_dict()[name], value, rtol=1e-6, atol=1e-8)
        mine, own = a.curves.fetch(), b.curves.fetch()
        assert list(mine.values) == list(own.values)
        assert all(abs(mine.values[name] - own.values[name]).max() < 1e-3 for name in own.values)
    assert not any(torch.equal(a, b) for a, b in zip(together[0].model.parameters(), together[1].model.parameters(), strict=True) if a.dim() > 1)


def test_a_gradient_that_hooks_change_is_found_out_by_the_trial():
    runs = [SMALL.replace(seed=seed, objective="iw", samples=3, gradient="dreg") for seed in (1, 2)]  # vmap passes hooks by in silence
    with pytest.raises(NotStackable, match="of their size apart"): try_out(Stack([Trainer(run).session for run in runs]), Trainer(runs[0]).live)


@pytest.mark.parametrize("family, changes", [("hvae", {"name": "fashion-mnist", "images": 500, "layers": 2, "latents": (2, 4), "hidden": (16, 8),
                                                       "batch": 8}), ("compvae", {"batch": 16})])
def test_models_of_other_families_say_the_same_together(family, changes):
    trainers = [make_trainer(family, {**changes, "seed": seed, "device": "cpu"}) for seed in (0, 1)]
    try: found = try_out(Stack([trainer.session for trainer in trainers]), trainers[0].live)
    except NotStackable as error: pytest.fail(str(error))
    assert found.error < 1e-4 and found.memory > 4 * sum(p.nbytes for p in trainers[0].model.parameters())


@pytest.mark.parametrize("family, why", [("nem", "autograd.Function"), ("ssl", ".item()"), ("csvae", "channels_last")])
def test_what_cannot_be_batched_is_refused_in_words_and_left_as_it_was(family, why):
    trainers = [make_trainer(family, {"seed": seed, "device": "cpu", "batch": 8}) for seed in (0, 1)]
    before = [{name: value.clone() for name, value in trainer.model.state_dict().items()} for trainer in trainers]
    stack, reason = stack_that_pays(trainers)
    assert stack is None and why in reason and "Train each seed alone" in reason
    for trainer, kept in zip(trainers, before):
        for name, value in trainer.model.state_dict().items(): assert torch.equal(value, kept[name]), name


class Normed(Mean):
    "A mean that counts with a batch norm."
    def __init__(self, settings, shape):
        super().__init__(settings, shape)
        self.norm = nn.BatchNorm2d(1)

    def losses(self, batch, context): return super().losses(Batch(x=self.norm(batch.x)), context)


class Spoilt(Mean):
    "A mean whose loss is NaN where a draw of its own is large: for one seed early, for another late."
    def losses(self, batch, context):
        bad = torch.randn((), generator=context.generator) > 2.0
        return Terms({name: torch.where(bad, torch.nan, value) for name, value in super().losses(batch, context).items()})


def built(monkeypatch, kind): monkeypatch.setattr("latentlab.train.example.Mean", kind)


def test_a_batch_norm_is_batched_or_refused_and_a_trial_counts_nothing(monkeypatch):
    built(monkeypatch, Normed)
    trainers = [Trainer(MeanRun().replace(seed=seed)) for seed in (0, 1)]
    stack_that_pays(trainers)
    for trainer in trainers: assert trainer.model.norm.num_batches_tracked == 0 and trainer.model.norm.running_mean.abs().max() == 0


def test_a_loss_that_is_not_finite_parts_the_runs_and_only_the_one_at_fault_fails(monkeypatch, tmp_path):
    built(monkeypatch, Spoilt)
    runs = [MeanRun().replace(seed=seed, steps=30) for seed in range(5)]
    alone = []
    for run in runs:
        try: alone.append(Trainer(run).fit(progress=False).step_count)
        except RuntimeError as error: alone.append(str(error))
    outcomes = train_seeds(runs, tmp_path)
    assert 0 < sum(isinstance(one, str) for one in alone) < 5, "the draws of these seeds no longer try both"
    for one, own in zip(outcomes, alone):
        if isinstance(own, str): assert one.state == "failed" and own in one.error
        else: assert one.state == "done" and Journal(tmp_path).run(one.id).facts["steps"] == own


def test_records_are_those_of_runs_alone_and_say_who_was_with_them(tmp_path):
    runs, journal, apart = [SMALL.replace(seed=seed) for seed in (4, 7)], Journal(tmp_path / "a"), Journal(tmp_path / "b")
    outcomes = train_seeds(runs, journal.root, {"sweep": "s"})
    for run, outcome in zip(runs, outcomes):
        alone = Trainer(run, journal=apart).fit(progress=False)
        mine, own = journal.run(outcome.id), apart.run(alone.recorder.id)
        assert (mine.facts["together"], mine.facts["sweep"], mine.facts["digest"]) == (2, "s", own.facts["digest"])
        assert mine.facts["state"] == own.facts["state"] == "done" and mine.facts["steps"] == own.facts["steps"] == 20
        for a, b in zip(lines(journal, outcome.id), lines(apart, alone.recorder.id), strict=True):
            assert a["step"] == b["step"] and set(a) == set(b)
        a, b = (load_checkpoint(newest_checkpoint(j.folder(id))) for j, id in ((journal, outcome.id), (apart, alone.recorder.id)))
        for name in b["model"]: torch.testing.assert_close(a["model"][name], b["model"][name], rtol=1e-3, atol=1e-4)
        assert all(value.untyped_storage().nbytes() == value.nbytes for value in a["model"].values()), "the weights of all seeds in each file"
    assert [one.state for one in train_seeds(runs, journal.root)] == ["found"] * 2


def test_a_stop_leaves_checkpoints_from_which_they_go_on_together(tmp_path):
    runs, asked = [SMALL.replace(seed=seed) for seed in (1, 2)], []
    cut = train_seeds(runs, tmp_path / "a", stop=lambda: len(asked) > 12 or asked.append(1))
    journal = Journal(tmp_path / "a")
    assert [one.state for one in cut] == ["interrupted"] * 2 and {row["steps"] for row in journal.rows()} == {13}
    ended, whole = train_seeds(runs, tmp_path / "a"), train_seeds(runs, tmp_path / "b")
    assert [one.id for one in ended] == [one.id for one in cut] and {one.state for one in ended + whole} == {"done"}
    for one, other in zip(ended, whole):
        a, b = (load_checkpoint(newest_checkpoint(Journal(tmp_path / where).folder(id.id))) for where, id in (("a", one), ("b", other)))
        for name in b["model"]: torch.testing.assert_close(a["model"][name], b["model"][name])


def test_runs_at_other_steps_or_that_take_too_much_memory_are_trained_one_by_one(monkeypatch, tmp_path):
    runs = [MeanRun().replace(seed=seed, steps=30) for seed in range(3)]
    Trainer(runs[1], journal=tmp_path).fit(10, progress=False)
    assert [one.state for one in train_seeds(runs, tmp_path)] == ["done"] * 3
    assert all("together" not in Journal(tmp_path).run(row["id"]).facts for row in Journal(tmp_path).rows())
    monkeypatch.setattr(lockstep, "memory_budget", lambda: 10)
    trainers = [Trainer(run) for run in runs]
    assert "more than the budget of 0.0 GB" in train_in_lockstep(trainers, 5) and {trainer.step_count for trainer in trainers} == {0}
    monkeypatch.setattr(lockstep, "LEAST_GAIN", 1e9)
    assert "times as fast as one after another" in train_in_lockstep(trainers, 5)


def test_a_death_gives_each_run_out_by_itself(tmp_path):
    calls = []

    class ByHand:
        def __init__(self, workers): pass
        def interrupt(self): pass
        def close(self): pass

        def submit(self, call, what, *words):
            calls.append((call.__name__, len(what) if isinstance(what, list) else 1))
            future = Future()
            if call is train_seeds: future.set_exception(WorkerDied("killed"))
            else: future.set_result(Outcome(state="done", id=str(len(calls))))
            return future

    plan = Plan(base=MeanRun(), changes=[{"noise": 0.1}, {"noise": 0.2}], seeds=range(5))
    sweep = Sweep(plan, tmp_path, workers=2, backend=ByHand, together=True).start().wait(progress=False)
    assert calls[:4].count(("train_seeds", 3)) == 2 and calls.count(("train_seeds", 2)) == 2 and calls.count(("train_one", 1)) == 10
    assert sweep.progress().done == 10 and set(sweep.tries.values()) == {2}
    assert not Sweep(plan, tmp_path).together
