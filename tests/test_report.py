"""The report of a run: from its folder alone, every text escaped, the checks and the picture of now, and a family that is
missing or fails costs the picture only.
"""
import io
import re
import time
from dataclasses import dataclass, field

import numpy as np
import pytest
from latentlab.core.checks import Verdict
from latentlab.core.registry import Family
from latentlab.core.settings import Settings, setting
from latentlab.journal import report as report_module
from latentlab.journal.journal import Journal
from latentlab.journal.report import newest_checks, snapshot_of
from latentlab.plots.style import new_figure
from latentlab.train.example import MeanRun
from latentlab.train.settings import TrainSettings

SCRIPT = "<script>alert('x')</script> & | *b* $a_"


@dataclass(frozen=True, kw_only=True)
class ToyModel(Settings):
    weight: float = setting(0.1, kind="live", low=0.0, high=1.0, label="weight <b>")
    layers: int = setting(2, kind="build", low=1, high=4)


@dataclass(frozen=True, kw_only=True)
class ToyRun(Settings):
    model: ToyModel = field(default_factory=ToyModel)
    train: TrainSettings = field(default_factory=TrainSettings)

    def build(self, device): raise NotImplementedError


class ToyDisplay:
    "Writes what it was given into its figure."

    def figure(self, snapshot):
        figure = new_figure(4, 2)
        figure.text(0.1, 0.5, f"weight {snapshot.run.get('weight')} at step {snapshot.step}, {snapshot.images.shape}, "
                              f"{sorted(snapshot.views)}")
        figure.given = snapshot
        return figure


class BrokenDisplay:
    def figure(self, snapshot): raise RuntimeError(SCRIPT)


@pytest.fixture(autouse=True)
def apart(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LATENTLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.chdir(tmp_path_factory.mktemp("work"))


def install(monkeypatch, display):
    family = Family(name="toy", title="A toy", experiment=ToyRun, display=f"{__name__}:X", summary=("loss",), lab="toy.ipynb")
    monkeypatch.setattr(report_module, "find_family", lambda name: family)
    monkeypatch.setattr(Family, "load_display", lambda self: display())


def verdict(sentence, level="ok"): return Verdict(name="range", level=level, value=0.4, threshold=1.0, sentence=sentence, remedy="wait")


def write(journal, run=None, images=None, state=None, steps=100):
    "A run of some steps, written by hand."
    record = journal.begin(run or ToyRun(), weights={"square": 1.0}, facts={"device": "cpu", "units": {"square": "intensity"},
                                                                            "info": {"data": SCRIPT}})
    for step in range(10, steps + 1, 10): record.log(step, 0.01 * step, {"loss": 1 / step, "square": 2 / step}, {"square": 1.0}, 10)
    record.changed(51, "model.weight", 0.1, 0.7)
    record.judged(10, {"level": 0.4}, [verdict("early")])
    record.judged(steps, {"level": 0.5}, [verdict("late")])
    record.picture("last", {"image": np.zeros((3, 1, 6, 6)) if images is None else images, "keep": np.ones((3, 6, 6))})
    if state: record.state(state, step=steps, seconds=1.0), record.close()
    return record


def test_every_text_is_escaped(tmp_path, monkeypatch):
    install(monkeypatch, BrokenDisplay)
    journal = Journal(tmp_path)
    record = write(journal, ToyRun().replace(weight=0.2))
    journal.note(record.id, SCRIPT)
    try: raise ValueError(SCRIPT)
    except ValueError as error: record.state("failed", step=100, seconds=1.0, error=error)
    record.close()
    report = journal.report(record.id)
    assert "<script" not in report.html and report.html.count("&lt;script&gt;") >= 4, "title, note, error, and the sentence on the picture"
    assert "weight &lt;b&gt;" in report.html and "<script" not in report.markdown and "ValueError" in report.html
    assert "could not be drawn (RuntimeError: " in report.html and report.png[:4] == b"\x89PNG"


def test_a_run_that_still_runs_shows_its_newest_checks_and_picture(tmp_path, monkeypatch):
    install(monkeypatch, ToyDisplay)
    journal = Journal(tmp_path)
    record = write(journal, steps=12_180)
    page = journal.report(record.id).html
    assert "of step 12,180, the run is at 12,180" in page and "late" in page and "early" not in page and "running" in page
    assert [row["step"] for row in newest_checks(journal.run(record.id))] == [12_180]
    record.close()


def test_verdicts_of_an_earlier_version_come_from_the_lines(tmp_path, monkeypatch):
    install(monkeypatch, ToyDisplay)
    journal = Journal(tmp_path)
    record = write(journal, state="done")
    (record.folder / "verdicts.json").unlink()
    assert [row["sentence"] for row in newest_checks(journal.run(record.id))] == ["early"], "only a change of level was written"
    for damaged in ("", "[]", '{"step": 1, "checks": 3}', '{"checks": [{"name": "range", "level": "ok", "step": "x"}]}'):
        (record.folder / "verdicts.json").write_text(damaged)
        assert [row["sentence"] for row in newest_checks(journal.run(record.id))] == ["early"] and "<html" in journal.report(record.id).html


def test_the_family_gets_the_run_as_it_ended(tmp_path, monkeypatch):
    install(monkeypatch, ToyDisplay)
    journal = Journal(tmp_path)
    record = write(journal, ToyRun().replace(layers=3), state="done")
    now = snapshot_of(journal.run(record.id))
    assert (now.run.get("weight"), now.run.get("layers"), now.values["weight"], now.step) == (0.7, 3, 0.7, 100)
    assert now.images.shape == (3, 1, 6, 6) and set(now.views) == {"image", "keep"} and now.views["keep"].dtype == np.float32
    assert ([m.step for m in now.measurements] == [10, 100] and now.measurements[-1].verdicts[0].sentence == "late"
            and now.measurements[0].verdicts == ())
    assert now.curves.steps[-1] == 100 and np.isclose(now.curves.values["loss"][-1], 0.01)
    assert "weight 0.7 at step 100" in str(report_module.draw_run(journal.run(record.id))[0].texts)


def test_a_family_that_is_not_installed_costs_its_picture_only(tmp_path):
    journal = Journal(tmp_path)
    record = write(journal, state="done")
    figure, note = report_module.draw_run(journal.run(record.id))
    assert "`family` must be one of" in note and len(figure.axes) == 6, "two arrays of three images"
    bare = journal.begin(MeanRun())
    bare.state("done", step=0, seconds=0.0), bare.close()
    page = journal.report(bare.id).html
    assert ("No picture was saved" in page and "No curves were recorded" in page and "No checks were made" in page
            and journal.report(bare.id).png[:4] == b"\x89PNG")


@pytest.mark.parametrize(("images", "words"), [(np.zeros((3, 1, 6, 6)), "same images"), (np.ones((3, 1, 6, 6)), "different images"),
                                               (np.arange(3.0).repeat(36).reshape(3, 1, 6, 6), "same images: the 1 that they share")])
def test_two_runs_stand_beside_each_other(tmp_path, monkeypatch, images, words):
    install(monkeypatch, ToyDisplay)
    journal = Journal(tmp_path)
    first, second = write(journal, state="done"), write(journal, ToyRun().replace(layers=4), images=images, state="done")
    report = journal.report(first.id, second.id)
    assert (words in report.html and first.id in report.html and second.id in report.html and report.html.count("<article>") == 2
            and report.html.count("<svg") == 3 and "model.layers" in report.html)


def test_a_report_is_saved_as_what_its_name_says(tmp_path, monkeypatch):
    from PIL import Image

    install(monkeypatch, ToyDisplay)
    journal = Journal(tmp_path / "runs")
    report = journal.report(write(journal, state="done").id)
    assert (report.save(tmp_path / "a.html").read_text().startswith("<!doctype html>")
            and report.save(tmp_path / "a.md").read_text().startswith("## TOY"))
    assert Image.open(io.BytesIO(report.save(tmp_path / "a.png").read_bytes())).size[0] > 500
    with pytest.raises(ValueError, match="`path` must end with .html, .md or .png: got a.pdf"): report.save(tmp_path / "a.pdf")


@pytest.mark.parametrize("name", ["../x", "a/b", "", "absent"])
def test_names_are_checked(tmp_path, name):
    with pytest.raises(ValueError): Journal(tmp_path).report(name)


def test_the_page_needs_nothing_from_elsewhere(tmp_path, monkeypatch):
    install(monkeypatch, ToyDisplay)
    journal = Journal(tmp_path)
    page = journal.report(write(journal, state="done").id).html
    links = re.findall(r"(?:src|href)=\"([^\"#][^\"]*)", page)
    assert [link for link in links if not link.startswith("data:")] == [], "no file and no server is asked"
    assert time.strftime("%Y") in page
