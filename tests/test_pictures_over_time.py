"Pictures of a run on a schedule: which there are, what is left out, and that keeping them changes nothing of the training."
import os

import numpy as np
import pytest
import torch
from latentlab.core.registry import find_family
from latentlab.core.settings import as_dict
from latentlab.families.nem.experiment import NEMRun
from latentlab.journal.journal import Journal
from latentlab.journal.report import draw_run, snapshot_of
from latentlab.journal.series import picture_series
from latentlab.panels.protocol import journal_value
from latentlab.train.example import MeanRun
from latentlab.train.recorder import Recorder
from latentlab.train.trainer import Trainer

RUN = MeanRun().replace(steps=60, device="cpu", check_every=20)


@pytest.fixture
def trained(tmp_path):
    trainer = Trainer(RUN, journal=tmp_path / "runs").fit(progress=False)
    trainer.stop()
    return Journal(tmp_path / "runs").run(trainer.recorder.id)


def test_the_schedule_and_each_picture_of_its_own_step(trained):
    assert trained.pictures() == (0, 1, 2, 5, 10, 20, 50, 60)
    levels = [float(trained.picture(step=step)["level"].mean()) for step in trained.pictures()]
    assert len(set(levels)) == len(levels) and levels[-1] == float(trained.picture()["level"].mean())
    with pytest.raises(ValueError, match="must be one of 0, 1, 2, 5, 10, 20, 50, 60: got 7"): trained.picture(step=7)


def test_a_run_that_goes_on_from_an_earlier_step_leaves_its_later_pictures(tmp_path):
    trainer = Trainer(RUN.replace(checkpoint_every=20), journal=tmp_path).fit(20, progress=False)
    before = Journal(tmp_path).run(trainer.recorder.id).checkpoint().read_bytes()
    trainer.fit(40, progress=False)
    trainer.stop()
    run = Journal(tmp_path).run(trainer.recorder.id)
    assert run.pictures() == (0, 1, 2, 5, 10, 20, 50, 60)
    run.checkpoint().write_bytes(before)
    again = Trainer(RUN.replace(checkpoint_every=20), journal=tmp_path)
    again.load(run.id, go_on=True)
    again.fit(5, progress=False)
    again.stop()
    assert Journal(tmp_path).run(run.id).pictures() == (0, 1, 2, 5, 10, 20, 25)


def test_a_moment_of_the_past_has_the_curves_and_settings_of_then(tmp_path):
    trainer = Trainer(NEMRun().replace(encoder="untrained", images=64, batch=4, layers=1, width=4, device="cpu", steps=10, check_every=5,
                                       record_every=1), journal=tmp_path).fit(4, progress=False)
    trainer.set(kl_scale=0.05)
    trainer.fit(6, progress=False)
    trainer.stop()
    run = Journal(tmp_path).run(trainer.recorder.id)
    early, late = snapshot_of(run, 2), snapshot_of(run, 10)
    assert (early.step, early.curves.steps[-1], early.measurements[-1].step, early.run.get("kl_scale")) == (2, 2, 2, 0.005)
    assert (late.curves.steps[-1], late.measurements[-1].step, late.run.get("kl_scale")) == (10, 10, 0.05)
    assert len(draw_run(run, (0, 1), step=5)[0].axes) < len(draw_run(run, step=5)[0].axes)
    assert run.pictures() == (0, 1, 2, 5, 10)


def test_a_report_has_a_slider_over_the_steps(tmp_path, trained):
    for step in trained.pictures()[1:-1]: os.unlink(trained.folder / "figures" / f"step-{step}.npz")
    assert Journal(tmp_path / "runs").report(trained.id).over_time.count("<div data-frame=") == 2


@pytest.mark.parametrize("family", ["nem", "hvae"])
def test_training_is_the_same_to_the_bit_without_pictures(tmp_path, monkeypatch, family):
    def weights(folder):
        torch.manual_seed(0)
        run = find_family(family).experiment().replace(steps=7, batch=4, device="cpu")
        trainer = Trainer(run, journal=folder).fit(progress=False)
        trainer.stop()
        return trainer.model.state_dict(), Journal(folder).run(trainer.recorder.id).pictures()

    with_them, steps = weights(tmp_path / "a")
    monkeypatch.setattr(Recorder, "picture_due", lambda self, step: False)
    without, none = weights(tmp_path / "b")
    assert steps == (0, 1, 2, 5, 7) and none == (7,)
    assert all(torch.equal(with_them[name], without[name]) for name in without)


def test_a_file_that_says_another_step_than_its_name_is_left_out(trained):
    folder = trained.folder / "figures"
    (folder / "step-10.npz").write_bytes((folder / "step-20.npz").read_bytes())
    (folder / "step-5.npz").write_bytes((folder / "step-5.npz").read_bytes()[:60])
    (folder / "step-007.npz").write_bytes((folder / "step-2.npz").read_bytes())
    np.savez(folder / "step-3.npz", _step=np.array(3), _time=np.array([print], object))
    np.savez(folder / "step-4.npz", image=np.zeros((1, 1, 2, 2)))
    np.savez(folder / "step-6.npz", _step=np.array([6, 6]), image=np.zeros((1, 1, 2, 2)))
    assert trained.pictures() == (0, 1, 2, 20, 50, 60)


def test_more_files_than_any_run_has_are_not_all_opened(trained, monkeypatch):
    data = (trained.folder / "figures" / "step-2.npz").read_bytes()
    for step in range(1001, 1300): (trained.folder / "figures" / f"step-{step}.npz").write_bytes(data)
    opened, kind = [], type(trained)
    plain = kind._stamp
    monkeypatch.setattr(kind, "_stamp", lambda self, name: opened.append(name) or plain(self, name))
    assert trained.pictures() == (0, 1, 2, 5, 10, 20, 50, 60) and len(opened) <= 65


def test_a_run_of_before_has_its_last_picture(trained):
    for path in (trained.folder / "figures").glob("step-*.npz"): os.unlink(path)
    image = trained.picture()
    np.savez(trained.folder / "figures" / "last.npz", **image)
    assert trained.pictures() == (60,) and trained.picture(step=60).keys() == image.keys()


def test_the_disk_has_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr("latentlab.train.recorder.MOST_PICTURES", 1)
    trainer = Trainer(RUN, journal=tmp_path).fit(progress=False)
    trainer.stop()
    assert Journal(tmp_path).run(trainer.recorder.id).pictures() == (0, 60)


def test_a_sweep_along_its_setting_and_two_runs_beside(tmp_path):
    ids = []
    for pull in (0.0, 0.5, 0.1):
        trainer = Trainer(RUN.replace(pull=pull), journal=tmp_path).fit(progress=False)
        trainer.stop()
        ids.append(trainer.recorder.id)
    journal = Journal(tmp_path)
    series = picture_series(journal, ids[:1], "pull")
    assert [frame.told for frame in series.frames] == ["pull 0, step 60", "pull 0.1, step 60", "pull 0.5, step 60"]
    assert [frame.runs[0][0].id for frame in series.frames] == [ids[0], ids[2], ids[1]]
    assert as_dict(RUN)["class"] == "MeanRun" and list(series.choices.values()) == ["step", "pull"]
    both = journal.pictures(*ids[:2])
    assert [frame.told for frame in both.frames][:2] == ["step 0", "step 1"] and all(len(frame.runs) == 2 for frame in both.frames)


def test_two_runs_on_different_images_have_no_slider_and_the_page_says_why(tmp_path):
    ids = []
    for seed in (0, 1):
        trainer = Trainer(RUN.replace(seed=seed, steps=2), journal=tmp_path).fit(progress=False)
        trainer.stop()
        ids.append(trainer.recorder.id)
    journal = Journal(tmp_path)
    for path in (journal.run(ids[1]).folder / "figures").glob("*.npz"):
        with np.load(path) as held: arrays = dict(held)
        np.savez(path, **{**arrays, "image": 1 - arrays["image"]})
    said = Journal(tmp_path).report(*ids)
    assert "The two runs show different images" in said.beside and "no slider over their steps" in said.beside and said.over_time == ""


def test_the_page_may_ask_for_nothing_else():
    assert journal_value("pictures", ["step", "a-1"]) == ["step", "a-1"]
    for bad in (None, ["step"], ["step", "../x"], ["step", "a", "a"], [3, "a"], ["x" * 201, "a"], ["step", *"abcdefg"]):
        with pytest.raises(ValueError, match="six ids of runs"): journal_value("pictures", bad)
