"""Faults that were found once and mended: one test each, so that they stay mended."""
import json
import threading
import time

import pytest
import torch
from latentlab.core.settings import Live
from latentlab.data.images import load
from latentlab.data.sources import with_images
from latentlab.families.hvae.experiment import HVAERun
from latentlab.families.nem.experiment import NEMRun
from latentlab.journal.journal import Journal
from latentlab.latents.evaluate import evaluate
from latentlab.nn.encoders import FrozenEncoder, SmallEncoder
from latentlab.nn.masking import straight_through
from latentlab.train.checkpoint import save_checkpoint
from latentlab.train.example import MeanRun
from latentlab.train.session import NonFiniteStep
from latentlab.train.trainer import Pause, Rebuild, Start, Trainer
from torch import nn


def until(condition, seconds=60.0):
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "waited too long"
        time.sleep(0.002)


def test_1_a_change_during_a_rebuild_is_kept():
    gate, entered, calls = threading.Event(), threading.Event(), []

    def build(run, device):
        calls.append(run)
        if len(calls) == 2:
            entered.set()
            gate.wait(60)
        return run.build(device)

    trainer = Trainer(MeanRun(), build=build).start()
    built = trainer.submit(Rebuild(changes={"noise": 0.2}))
    assert entered.wait(60)
    trainer.set(pull=3.0)
    gate.set()
    built.result(60)
    assert trainer.run.model.noise == 0.2
    trainer.stop()
    assert trainer.run.model.pull == 3.0 == trainer.live.values["pull"]


def test_2_a_change_within_a_step_is_recorded_for_the_next():
    trainer, seen = Trainer(MeanRun()), []
    losses = trainer.model.losses

    def record(batch, context):
        seen.append(context.live.values["pull"])
        if len(seen) == 4:
            other = threading.Thread(target=lambda: trainer.set(pull=2.0))
            other.start()
            other.join(60)
        return losses(batch, context)

    trainer.model.losses = record
    trainer.fit(8, progress=False)
    assert trainer.changes[0].step == seen.index(2.0) == 4


def test_3_after_a_failure_serving_and_rebuilding_train_nothing_by_themselves():
    trainer = Trainer(MeanRun().replace(poison=5)).start()
    until(lambda: not trainer.busy)
    trainer.serve().rebuild(poison=10**9)
    until(lambda: trainer.run.model.poison == 10**9)
    time.sleep(0.05)
    assert trainer.step_count == 0 and trainer.state != "failed"
    assert trainer.start(3).wait().step_count == 3
    trainer.stop()


def test_4_a_start_after_a_bad_step_goes_on_from_the_weights_before_it():
    trainer, healthy = Trainer(MeanRun().replace(poison=5)), Trainer(MeanRun()).fit(8, progress=False)
    with pytest.raises(NonFiniteStep): trainer.fit(20, progress=False)
    trainer.model.settings = trainer.model.settings.replace(poison=10**9)  # what was bad is cured
    trainer.fit(3, progress=False)
    assert trainer.step_count == 8 and torch.equal(trainer.model.level, healthy.model.level)


@pytest.mark.parametrize("path", [None, "named"])
def test_5_a_checkpoint_of_another_encoder_changes_nothing(tmp_path, path):
    run, images = NEMRun().replace(batch=8, layers=2, width=4, device="cpu"), load("fashion-mnist", limit=104)

    def trainer(first):
        module = SmallEncoder(1, (2, 2), (first, 16), generator=torch.Generator().manual_seed(0))
        encoder = FrozenEncoder(module, module.names)
        return Trainer(with_images(run, images), folder=tmp_path, build=lambda run, device: run.build(device, encoder=encoder))

    first = trainer(8).fit(2, progress=False)
    written = first.checkpoints.path(first.run)
    other = trainer(4)
    before = {k: v.clone() for k, v in other.model.state_dict().items()}
    with pytest.raises(ValueError, match="`model` must be of this structure: got other unet"): other.resume(path and written)
    assert all(torch.equal(before[k], v) for k, v in other.model.state_dict().items()) and other.step_count == 0


@pytest.mark.parametrize("state", [{"weights": torch.ones(2)}, {"settings": 3}])
def test_6_a_whole_file_of_something_else_is_refused_in_words(tmp_path, state):
    with pytest.raises(ValueError, match="`path` must be"): Trainer(MeanRun()).resume(save_checkpoint(state, tmp_path / "other.ckpt"))


def test_7_frozen_also_when_a_part_of_the_module_is_set_to_training():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 8, 3, 2, 1))
    encoder, x = FrozenEncoder(module, ["2", "4"]), torch.rand(4, 1, 28, 28)
    expected, before = encoder.embed(x), {k: v.clone() for k, v in module.state_dict().items()}
    module[1].train()
    module[3].train()
    assert torch.equal(encoder.embed(x), expected) and all(torch.equal(before[k], v) for k, v in module.state_dict().items())


def test_8_start_counts_steps_that_are_still_to_come():
    trainer, inside, gate = Trainer(MeanRun()), threading.Event(), threading.Event()
    losses = trainer.model.losses

    def slow(batch, context):
        inside.set()
        gate.wait(60)
        return losses(batch, context)

    trainer.model.losses = slow
    trainer.start()
    assert inside.wait(60)
    asked = [trainer.submit(Pause()), trainer.submit(Start(steps=3))]  # while the first step is on its way
    gate.set()
    for one in asked: one.result(60)
    assert trainer.wait().step_count == 1 + 3
    trainer.stop()


def test_9_a_picture_asked_for_when_the_thread_fails_does_not_wait():
    trainer = Trainer(MeanRun())
    inside, go = threading.Event(), threading.Event()

    def fail(batch, context):
        inside.set()
        go.wait(60)
        raise RuntimeError("bad")

    trainer.model.losses = fail
    trainer.start()
    assert inside.wait(60)
    threading.Timer(0.1, go.set).start()
    assert trainer.snapshot(timeout=60.0) is not None


def test_10_a_wait_of_no_time_returns():
    trainer = Trainer(MeanRun()).start()
    done = threading.Thread(target=lambda: trainer.wait(timeout=0), daemon=True)
    done.start()
    done.join(60)
    alive = done.is_alive()
    trainer.stop()
    assert not alive


def test_11_a_hard_mask_is_exactly_0_or_1():
    keep = torch.linspace(0, 1, 10001)[None, None]
    assert torch.equal(straight_through(keep), (keep > 0.5).float())


def test_12_scenes_and_an_encoder_of_garments_differ_in_channels_first():
    with pytest.raises(ValueError, match="`images` must have 1 channels for this encoder: got 3"):
        NEMRun().replace(images=64, data="scenes", encoder="untrained:fashion-mnist").build("cpu")


def test_13_too_few_images_of_ones_own():
    few = load("fashion-mnist", limit=40)
    with pytest.raises(ValueError, match="`images` must"): with_images(NEMRun(), few).build("cpu")


def test_an_old_error_does_not_outlive_a_good_fit(tmp_path):
    "After a failed fit, resume and a good fit leave no error behind; wait() raises nothing."
    good = Trainer(MeanRun(), folder=tmp_path).fit(10, progress=False)
    error = NonFiniteStep("as if it had failed")
    good.error, good.state = error, "failed"
    good.resume()
    assert (good.error, good.state) == (None, "idle")
    good.error = error
    good.fit(5, progress=False).wait(60)
    assert good.error is None


def test_explaining_beside_a_running_trainer_never_fails():
    "A cell explains while the thread trains: the check of the encoder must not see the other thread's pass."
    trainer = Trainer(NEMRun().replace(images=64)).start()
    until(lambda: trainer.step_count > 2)
    for _ in range(60): trainer.model.explain(trainer.setup.preview)
    trainer.stop()
    assert trainer.error is None


def test_a_pause_that_meets_an_error_ends_as_failed_and_can_be_stopped():
    "A check that raises while pausing is kept as the trainer's error; pause and stop return."
    trainer = Trainer(MeanRun()).start()
    until(lambda: trainer.step_count > 2)

    def broken(model, context): raise RuntimeError("no verdict")

    trainer.setup.diagnostics.measure = broken
    trainer.session.measurements.clear()
    trainer.model.after_step = lambda: time.sleep(0.001)
    while trainer.state == "running": trainer.pause() if trainer.step_count % 50 == 0 else time.sleep(0.0005)
    assert trainer.state == "failed" and str(trainer.error) == "no verdict"
    trainer.stop()
    assert not trainer.busy


def test_a_checkpoint_is_written_again_after_a_rebuild(tmp_path):
    "The same step and settings with other weights: the file on disk is that of the model in memory."
    trainer = Trainer(MeanRun(), folder=tmp_path).set(pull=1.0).fit(5, progress=False).set(pull=0.0).fit(5, progress=False)
    trainer.rebuild().fit(10, progress=False)
    kept = Trainer(MeanRun(), folder=tmp_path).resume()
    assert torch.equal(kept.model.level, trainer.model.level)


@pytest.mark.parametrize(("run", "changes"), [(HVAERun().replace({"data.points": 200, "batch": 50, "hidden": (8,)}),
                                               {"scale_kind": "fixed", "decoder_scale": 0.5}),
                                              (NEMRun().replace(images=64), {"smoothing": 2.0})], ids=["hvae", "nem"])
def test_a_model_answers_with_the_settings_in_force(run, changes, tmp_path):
    """After a live change, and after a resume of it, whoever asks the model without naming settings gets those that train,
    not those it was built with.
    """
    def answer(trainer, **live):
        model, x = trainer.model, trainer.setup.preview
        if isinstance(run, NEMRun): return model.explain(x, **live).keep
        return evaluate(model, x, generator=torch.Generator().manual_seed(0), **live).elbo

    trainer = Trainer(run.replace({"train.device": "cpu"}), folder=tmp_path).fit(2, progress=False)
    before = answer(trainer)
    trainer.set(changes)
    assert torch.equal(answer(trainer), answer(trainer, live=Live(trainer.run, "cpu"))) and not torch.equal(answer(trainer), before)
    trainer.fit(2, progress=False).checkpoint()
    again = Trainer(run.replace({"train.device": "cpu"}), folder=tmp_path).resume()
    assert again.run == trainer.run and torch.equal(answer(again), answer(trainer))


def test_runs_of_two_encoders_given_by_hand_are_two(tmp_path):
    "Identity is not the settings alone: what was handed in has a fingerprint, in digest, group and resume."
    run = NEMRun().replace(steps=3, images=100, batch=16, check_every=3)

    def of(seed, images=None, journal=tmp_path):
        small = SmallEncoder(1, generator=torch.Generator().manual_seed(seed))
        frozen = FrozenEncoder(small, small.names, name="mine", image_shape=(1, 28, 28))
        own = run if images is None else with_images(run, images)
        return Trainer(own, journal=journal, build=lambda run, device: run.build(device, encoder=frozen))

    one, two = (of(seed).fit(progress=False) for seed in (1, 2))
    named = Trainer(run, journal=tmp_path).fit(progress=False)
    journal = Journal(tmp_path)
    assert len({row["digest"] for row in journal.rows()}) == len({row["group"] for row in journal.rows()}) == 3
    assert of(2).resume().recorder.id == two.recorder.id and of(1).resume().recorder.id == one.recorder.id
    assert Trainer(run, journal=tmp_path).resume().recorder.id == named.recorder.id
    with pytest.raises(ValueError, match="no run of .* has these settings"): of(3).resume()
    with pytest.raises(ValueError, match="`path` must be a run of the encoder that this trainer was given"): of(3).resume(two.recorder.id)
    with pytest.raises(ValueError, match="`path` must be a run of the encoder"): of(3).load(named.recorder.id)
    pixels = load("fashion-mnist", "test", limit=150)
    other = of(1, pixels).fit(progress=False)
    assert of(1, pixels).resume().recorder.id == other.recorder.id
    with pytest.raises(ValueError, match="must be of this structure: got other data"): of(1).resume(other.recorder.id)
    facts = json.loads((tmp_path / one.recorder.id / "run.json").read_text())
    facts.pop("given")  # as a version wrote it that knew nothing of fingerprints
    (tmp_path / one.recorder.id / "run.json").write_text(json.dumps(facts))
    assert of(1).resume(one.recorder.id).step_count == 3
