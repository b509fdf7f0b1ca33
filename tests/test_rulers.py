"""A number carries what it was measured on: in the record, the table, means, figures and exports, also where a live setting changed it."""
import json
from pathlib import Path

import numpy as np
import pytest
from latentlab.core.checks import Verdict
from latentlab.facade import make_run
from latentlab.families.nem.display import NEMDisplay
from latentlab.families.nem.experiment import NEMRun
from latentlab.journal.files import read_lines
from latentlab.journal.index import surviving
from latentlab.journal.journal import Journal
from latentlab.journal.mlflow import points_of
from latentlab.journal.report import Report, final_numbers, plot_terms
from latentlab.journal.rulers import rulers_along
from latentlab.panels.display import Starts, begin_plots, curve_columns, plot_starts
from latentlab.train.trainer import Trainer
from matplotlib.text import Text

TINY = NEMRun().replace(encoder="untrained", images=64, batch=8, layers=2, width=4, device="cpu", steps=60, check_every=1000,
                        checkpoint_every=1000)


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> Journal:
    "A run on half cosine, one that went over to another distance after 15 of its steps, and one on that distance from its start."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LATENTLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
        found = Journal(tmp_path_factory.mktemp("book") / "runs")
        Trainer(TINY, journal=found).fit(20, progress=False)
        moved = Trainer(TINY.replace(seed=1), journal=found)
        moved.recorder.begin(moved.session, moved.live)
        moved.step(15).wait()
        moved.measure()
        moved.set(distance="relative_l2")
        moved.step(5).wait()
        moved.stop()
        Trainer(TINY.replace(seed=2, distance="relative_l2"), journal=found).fit(20, progress=False)
        yield found


def moved_run(journal: Journal): return next(journal.run(row["id"]) for row in journal.rows() if row["changes"])


def test_the_record_says_from_which_step_on_the_ruler_is_another(journal: Journal) -> None:
    run = moved_run(journal)
    rows = read_lines(run.folder / "metrics.jsonl").rows
    (change,) = [row for row in rows if "rulers" in row]
    assert run.facts["rulers"]["distance"] == "half cosine" and change["step"] == 16 and change["rulers"]["distance"] == "relative l2"
    lines = [(row["step"], row["n"]) for row in rows if "terms" in row]
    assert sum(n for _, n in lines) == 20 and (15, 5) in lines, "no line holds steps of both"
    metrics = run.metrics()
    assert metrics.rulers["distance"] == ["half cosine", "half cosine", "relative l2"] and metrics.steps == [10, 15, 20]
    assert metrics.rulers["held_out/distance_hard"][-1] == "relative l2" and "half cosine" in metrics.rulers["held_out/distance_hard"]
    assert set(metrics.rulers["area"]) == {"share of pixels"}, "what the setting did not change keeps its ruler"


def test_a_change_in_the_middle_of_a_line_ends_the_line(tmp_path: Path) -> None:
    "Not at a pause, where a line is written anyway: while it trains, three steps after the last line."
    trainer = Trainer(TINY.replace(steps=20), journal=tmp_path)
    losses = trainer.model.losses

    def moved_at(batch, context):
        if context.step == 12: trainer.set(distance="relative_l2")  # the next step reads it
        return losses(batch, context)

    trainer.model.losses = moved_at
    trainer.fit(20, progress=False)
    rows = read_lines(tmp_path / trainer.recorder.id / "metrics.jsonl").rows
    (change,) = [row["step"] for row in rows if "rulers" in row]
    lines = [(row["step"], row["n"]) for row in rows if "terms" in row]
    assert sum(n for _, n in lines) == 20 and not [1 for end, n in lines if end - n + 1 < change <= end], (change, lines)
    assert 11 < change < 20 and (change - 1, change - 11) in lines


def test_final_values_are_of_one_ruler(journal: Journal) -> None:
    run, row = moved_run(journal), next(row for row in journal.rows() if row["changes"])
    assert row["rulers"]["distance"] == "relative l2" == row["rulers"]["held_out/distance_hard"]
    assert row["metrics"]["distance"] == run.metrics().terms["distance"][-1]


def test_no_column_of_the_table_holds_two_rulers(journal: Journal) -> None:
    table = journal.runs()
    assert "distance" not in table and "distance_hard (held out)" not in table
    assert sorted(table["distance_hard (held out, half cosine)"].notna()) == [False, False, True]
    assert sorted(table["distance_hard (held out, relative l2)"].notna()) == [False, True, True]
    assert table["area (held out)"].notna().all(), "the area means the same in all of them"


def test_no_mean_and_no_axis_holds_two_rulers(journal: Journal) -> None:
    group = journal.group("distance_hard", "area")
    assert sorted(group["distance_hard", "ruler"]) == ["half cosine", "relative l2", "relative l2"]
    with pytest.raises(ValueError, match="must be on one ruler: got distance_hard .held out. on 'half cosine' .1 run.; 'relative l2' .1 run."):
        journal.compare("distance_hard")
    assert journal.compare("distance_hard", ruler="half cosine").axes and journal.compare("area").axes


def test_a_report_draws_each_ruler_on_an_axis_of_its_own(journal: Journal) -> None:
    run = moved_run(journal)
    labels = [ax.get_ylabel() for ax in plot_terms([run]).axes if ax.get_visible()]
    assert {"half cosine", "relative l2"} <= set(labels)
    told = {row["label"]: row["unit"] for row in final_numbers(run)}
    assert told["distance hard"] == "relative l2" and told["area"] == "share of pixels" and told["mask KL"] == "nats, prior 0.0001"
    ids = [row["id"] for row in journal.rows()]
    beside = plot_terms([journal.run(id) for id in (ids[0], ids[2])])
    for ax in beside.axes:
        drawn = {line.get_label() for line in ax.get_lines()}
        assert not {"left", "right"} <= {label.split(", ")[-1] for label in drawn if "distance" in label}, "one axis, two scales"
    assert "half cosine" in Report(runs=(run,), states=("done",)).html


def test_mlflow_has_a_name_for_each_ruler(journal: Journal) -> None:
    run = moved_run(journal)
    rows = surviving(read_lines(run.folder / "metrics.jsonl").rows)
    keys = {point.key for point in points_of(rows, 0.0, rulers_along(rows, run.facts)) if point.key.startswith("terms/distance")}
    assert keys == {"terms/distance/half cosine", "terms/distance/relative l2"}


# Journals of before --------------------------------------------------------------------------------------------------

def strip(journal: Journal, root: Path, kind: str = "nem") -> Journal:
    "The same runs as a version wrote them that knew no rulers: lines of ten steps over every change."
    for run in (journal.run(row["id"]) for row in journal.rows()):
        folder = root / run.id
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps({k: v for k, v in run.facts.items() if k != "rulers"} | {"kind": kind}))
        rows = [row for row in read_lines(run.folder / "metrics.jsonl").rows if "rulers" not in row]
        rows = [row | ({"n": 10} if row["step"] == 20 and "terms" in row else {}) for row in rows if not ("terms" in row and row["step"] == 15)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Journal(root)


def test_rulers_of_an_old_journal_follow_from_its_settings(journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTLAB_CACHE", str(tmp_path / "cache"))
    old = strip(journal, tmp_path / "old")
    found = sorted((row["rulers"]["distance"], row["rulers"]["held_out/distance_hard"]) for row in old.rows())
    assert found == [("half cosine", "half cosine"), ("relative l2", "relative l2"), ("unknown", "relative l2")]
    assert moved_run(old).metrics().rulers["distance"] == ["half cosine", "unknown"], "a mean over both is of neither"


def test_what_cannot_be_proved_is_called_unknown(journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTLAB_CACHE", str(tmp_path / "cache"))
    foreign = strip(journal, tmp_path / "foreign", kind="gone")
    assert {ruler for row in foreign.rows() for ruler in row["rulers"].values()} == {"unknown"}
    table = foreign.runs()
    assert "distance_hard (held out, unknown)" in table and "distance_hard (held out)" not in table


# The best run --------------------------------------------------------------------------------------------------------

def test_the_best_run_means_the_same_and_is_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTLAB_CACHE", str(tmp_path / "cache"))
    journal, base = Journal(tmp_path / "runs"), TINY
    def play(run: NEMRun, loss: float, level: str = "ok") -> str:
        record = journal.begin(run)
        record.log(10, 0.1, {"loss": loss}, {}, 10)
        record.judged(10, {}, [Verdict(name="mask_collapse", level=level, value=0.0, threshold=0.0, sentence="")])
        record.state("done", step=10, seconds=0.1), record.close()
        return record.id

    sound = play(base, 0.3)
    play(base.replace(kl_scale=0.5), 0.1), play(base.replace(distance="cosine"), 0.2), play(base.replace(fill="zero"), 0.25)
    play(base.replace(seed=3), 0.01, "bad"), play(base.replace(data="mnist"), 0.02)
    facts = journal.run(play(base.replace(seed=9), 0.4)).facts
    assert facts["best"]["id"] == sound
    assert facts["left_out"] == ("3 whose loss sums or measures something else, 1 with a check at its worst level, 1 on other data")
    alone = journal.run(play(base.replace(kl_scale=0.9), 0.4)).facts
    assert alone["best"] is None and alone["left_out"].startswith("6 whose loss sums")
    assert "No run before can be compared" in journal.report(journal.rows()[-1]["id"]).html


@pytest.mark.parametrize("name", ["hvae", "nem", "ssl"])
def test_every_number_of_a_family_has_a_ruler(name: str) -> None:
    small = {"nem": {"images": 64, "batch": 8}, "hvae": {"data": "moons", "points": 400}, "ssl": {"images": 64, "batch": 16}}[name]
    trainer = Trainer(make_run(name, small | {"device": "cpu"})).fit(1, progress=False)
    terms, figures = trainer.snapshot().curves.values, trainer.measure().figures
    wanted = [*(term for term in terms if not term.startswith("gradient_norm")), *(f"held_out/{figure}" for figure in figures)]
    assert [one for one in wanted if not trainer.live.rulers.get(one)] == []


# There and back: nothing joins the two sides -------------------------------------------------------------------------

@pytest.fixture
def there_and_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    "A run on half cosine that was on another distance from step 21 to step 40."
    monkeypatch.setenv("LATENTLAB_CACHE", str(tmp_path / "cache"))
    journal, rulers = Journal(tmp_path / "runs"), [run.rulers() for run in (TINY, TINY.replace(distance="relative_l2"))]
    rulers = [one | {"held_out/distance": one["distance"]} for one in rulers]
    record = journal.begin(TINY)
    record.ruled(1, rulers[0])
    for step in range(10, 70, 10):
        if step in (30, 50):
            pair = ("half_cosine", "relative_l2")[:: 1 if step == 30 else -1]
            record.changed(step - 9, "model.distance", *pair), record.ruled(step - 9, rulers[step == 30])
        record.log(step, 0.1, {"distance": 5.0 if step in (30, 40) else 0.1, "area": 0.5}, {}, 10)
        record.judged(step, {"distance": 5.0 if step in (30, 40) else 0.1}, [])
    record.state("done", step=60, seconds=0.1), record.close()
    return journal


def broken_at(line) -> list[float]: return [x for x, y in zip(line.get_xdata(), line.get_ydata()) if not np.isfinite(y)]


def test_a_curve_breaks_where_another_ruler_was_in_force(there_and_back: Journal) -> None:
    (row,) = there_and_back.rows()
    metrics = there_and_back.run(row["id"]).metrics()
    for name in ("distance", "held_out/distance"):
        found = metrics.on_last_ruler(name)
        assert [step for step, value in found if value == 0.1] == [10, 20, 50, 60]
        assert [step for step, value in found if np.isnan(value)] == [30, 40]
    figure = there_and_back.compare("distance")
    assert [broken_at(line) for line in figure.axes[0].get_lines()] == [[30, 40]] * 2
    assert "1 run was measured on another ruler for some of the steps" in " ".join(text.get_text() for text in figure.findobj(Text)).replace("\n", " ")
    drawn = {line.get_label(): line for ax in plot_terms([there_and_back.run(row["id"])]).axes for line in ax.get_lines()}
    at = lambda label: [int(x) for x, y in zip(drawn[label].get_xdata(), drawn[label].get_ydata()) if np.isfinite(y)]
    ours, others = ([name for name in drawn if ruler in name and "distance" in name] for ruler in ("half cosine", "relative l2"))
    assert len(ours) == len(others) == 2 and {tuple(at(name)) for name in ours} == {(10, 20, 50, 60)}
    assert {tuple(at(name)) for name in others} == {(30, 40)} and all(30 in broken_at(drawn[name]) for name in ours)


def test_a_curve_of_the_panel_begins_where_its_ruler_came_into_force() -> None:
    "The prior is no unit: nats stay nats. The KL against another prior is another number all the same, and the area is not."
    trainer = Trainer(TINY).fit(4, progress=False)
    trainer.measure()
    display, known = NEMDisplay(), {}
    assert plot_starts(display, trainer.snapshot(), trainer.changes, known) == Starts()
    trainer.set(prior=0.01)
    starts = plot_starts(display, trainer.snapshot(), trainer.changes, known)
    assert starts.plots == {} and starts.columns["mask_kl"] == 4 and not {"area", "distance", "held_out/distance_hard"} & set(starts.columns)
    begun = {term.name: term.since for plot in begin_plots(display.layout(trainer.snapshot()), starts).plots for term in getattr(plot, "terms", ())}
    assert begun == {"distance": 0, "held_out/distance_hard": 0, "area": 0, "mask_kl": 4}
    columns = curve_columns(trainer.snapshot())
    assert np.isfinite(columns["held_out/distance_hard"]).nonzero()[0][-1] == 3 == columns["step"][-1], "measured before the change: not after it"
    trainer.fit(2, progress=False)
    assert columns["held_out/distance_hard"][3] == curve_columns(trainer.snapshot())["held_out/distance_hard"][3]
    assert np.isnan(curve_columns(trainer.snapshot())["held_out/distance_hard"][4]), "step 4 is the first on the new ruler"
