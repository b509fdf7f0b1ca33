"""A journal written before the package was rearranged (version 0.1.0: one run of images without a checkpoint, one of points
with one) opens, lists, reports and resumes.
"""
import zipfile
from pathlib import Path

import numpy as np
import pytest
from latentlab.journal.journal import Journal
from latentlab.journal.report import draw_run, newest_checks, snapshot_of
from latentlab.train.trainer import Trainer

IMAGES, POINTS = "20261126-032003-nem-71f6a12", "20261126-032001-hvae-28c90ed"


@pytest.fixture
def journal(tmp_path):
    with zipfile.ZipFile(Path(__file__).parent / "data" / "old_journal.zip") as archive: archive.extractall(tmp_path / "runs")
    return Journal(tmp_path / "runs")


def test_it_is_listed_and_compared(journal):
    listed = journal.runs()
    assert (listed.index.tolist() == [IMAGES, POINTS] and listed["state"].tolist() == ["done", "done"]
            and listed["steps"].tolist() == [20, 30])
    assert (listed["kept"].tolist() == [True, False] and listed["note"].tolist() == ["a <b>note</b>", ""]
            and listed["changes"].tolist() == [0, 1])
    assert journal.diff(IMAGES, POINTS).loc["info.data"].tolist() == ["fashion-mnist", "moons"]


def test_its_picture_is_drawn_by_the_family_of_today(journal):
    now = snapshot_of(journal.run(IMAGES))
    assert now.images.shape == (8, 1, 28, 28) and now.step == 20 and now.curves.steps[-1] == 20 and now.run.get("kl_scale") == 0.005
    assert np.isfinite(now.measurements[-1].figures["distance_hard"]) and now.measurements[-1].verdicts
    figure, note = draw_run(journal.run(IMAGES))
    assert note == "" and len(figure.axes) >= 32, "four rows of eight images"


def test_its_report_tells_what_it_can(journal):
    page = journal.report(IMAGES).html
    assert "a &lt;b&gt;note&lt;/b&gt;" in page and page.count("<svg") == 2 and "20 steps" in page
    page = journal.report(POINTS).html
    assert "No picture was saved" in page and "beta" in page and "1: step 21" in page
    assert {row["name"] for row in newest_checks(journal.run(POINTS))} >= {"bound", "collapse", "overfit"}
    assert "| run | state |" in journal.book().read_text()


def test_a_run_goes_on_from_its_checkpoint(journal, monkeypatch):
    run = snapshot_settings(journal)
    trainer = Trainer(run, journal=journal)
    trainer.load(POINTS, go_on=True)
    assert trainer.step_count == 30 and trainer.recorder.id in (POINTS, None) and float(trainer.run.get("beta")) == 0.5
    trainer.fit(10, progress=False)
    (row,) = [row for row in journal.rows() if row["id"] == POINTS]
    assert row["steps"] == 40 and row["state"] == "done" and np.isfinite(row["metrics"]["loss"])
    assert snapshot_of(journal.run(POINTS)).step == 40, "it has a picture from now on"


def test_a_run_is_found_by_its_settings_though_their_sizes_were_text(journal):
    trainer = Trainer(snapshot_settings(journal), journal=journal).resume()
    assert trainer.step_count == 30 and trainer.recorder.id == POINTS
    with pytest.raises(ValueError, match="no run of runs has these settings"): Trainer(trainer.run.replace(seed=9), journal=journal).resume()


def snapshot_settings(journal):
    "The settings of the run of points, read by the class of today."
    from latentlab.core.registry import find_family

    return journal.run(POINTS).settings(find_family("hvae").experiment)
