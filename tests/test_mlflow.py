"Journal of a journal in MLflow: each once, whatever its state, and nothing lost on the way without a word."
import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from latentlab.core.checks import Verdict
from latentlab.journal import mlflow as module
from latentlab.journal.index import surviving
from latentlab.journal.mlflow import PARAMETER, TAG, Store, cut, name_of, points_of, to_mlflow
from latentlab.journal.journal import Journal
from latentlab.train.example import MeanRun
from latentlab.train.trainer import Trainer

NAN = float("nan")


@pytest.fixture
def uri(tmp_path: Path, monkeypatch) -> str:
    "A folder as a store; nothing is told to anybody."
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    return (tmp_path / "mlruns").as_uri()


@pytest.fixture
def journal(tmp_path: Path) -> Journal: return Journal(tmp_path / "runs")


def begun(journal: Journal, changes: dict | None = None, lines: int = 3):
    "A record with some lines in it."
    record = journal.begin(MeanRun().replace(changes or {}), weights={"square": 1.0, "pull": 0.0})
    for n in range(1, lines + 1): record.log(10 * n, 0.1 * n, {"square": 1.0 / n, "pull": 0.5}, {"square": 1.0, "pull": 0.0}, 10)
    return record


def in_mlflow(uri: str, id: str, experiment: str = "latentlab"): return Store(uri, experiment).known()[id]


def history(uri: str, run, key: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in Store(uri, "latentlab").client.get_metric_history(run.info.run_id, key)]


def killed(root: Path) -> str:
    "A run whose process ended in the middle."
    script = f"""
import os
from latentlab.journal.journal import Journal
from latentlab.train.example import MeanRun
record = Journal({str(root)!r}).ready().begin(MeanRun())
record.log(10, 0.1, {{'square': 0.5}}, {{'square': 1.0}}, 10)
print(record.id, flush=True)
os._exit(9)
"""
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip()


def test_every_state_has_its_status(uri: str, journal: Journal) -> None:
    ids = {"lost": killed(journal.root)}
    for state in ("running", "done", "interrupted", "failed"):
        record = begun(journal)
        ids[state] = record.id
        if state == "running": continue
        record.state(state, step=30, seconds=0.3, error=RuntimeError("it broke") if state == "failed" else None)
        record.close()
    found = to_mlflow(journal, uri=uri)
    assert (sorted(e.id for e in found) == sorted(ids.values()) == sorted(Store(uri, "latentlab").known())
            and {e.what for e in found} == {"new"})
    there = {state: in_mlflow(uri, id) for state, id in ids.items()}
    assert {state: run.info.status for state, run in there.items()} == {"lost": "KILLED", "running": "RUNNING", "done": "FINISHED",
                                                                        "interrupted": "KILLED", "failed": "FAILED"}
    assert all(run.data.tags["latentlab.state"] == state for state, run in there.items())
    assert there["running"].info.end_time is None and there["done"].info.end_time == int(1000 * journal.run(ids["done"]).facts["updated"])
    assert (there["failed"].data.tags["latentlab.error"].endswith("RuntimeError: it broke")
            and "latentlab.error" not in there["done"].data.tags)


def test_all_numbers_arrive_at_their_steps(uri: str, journal: Journal) -> None:
    "A real run with a live change: every term, weight and figure of its lines, and no other."
    trainer = Trainer(MeanRun().replace(steps=60, check_every=20), journal=journal).fit(30, progress=False)
    trainer.set(pull=0.5)
    trainer.fit(30, progress=False)
    to_mlflow(journal, uri=uri)
    run, there = journal.run(trainer.recorder.id), in_mlflow(uri, trainer.recorder.id)
    metrics = run.metrics()
    for name, values in metrics.terms.items(): assert history(uri, there, f"terms/{name}") == list(zip(metrics.steps, values))
    for name, pairs in metrics.probes.items(): assert history(uri, there, f"figures/{name}") == pairs
    assert [value for _, value in history(uri, there, "weights/pull")] == [0.0, 0.5] and len(history(uri, there, "weights/square")) == 1
    assert set(there.data.metrics) == {f"terms/{n}" for n in metrics.terms} | {f"weights/{n}"
                                                                               for n in metrics.weights} | {f"figures/{n}" for n in metrics.probes}
    assert there.data.tags["latentlab.changes"] == "step 31: model.pull 0.0 -> 0.5"
    assert (there.data.params["model.pull"] == "0.0" and there.data.params["train.steps"] == "60"
            and len(there.data.params) == len(MeanRun().fields()))


def test_a_second_export_adds_only_what_is_new(uri: str, journal: Journal) -> None:
    record = begun(journal)
    (first,), (same,) = to_mlflow(journal, uri=uri), to_mlflow(journal, uri=uri)
    record.log(40, 0.4, {"square": 0.1, "pull": 0.5}, {"square": 1.0, "pull": 0.3}, 10)
    other = begun(journal, {"seed": 1})
    more = {e.id: e for e in to_mlflow(journal, uri=uri)}
    assert (first.what, first.points, same.what, same.points) == ("new", 8, "same", 0)
    assert ((more[record.id].what, more[record.id].points, more[other.id].what) == ("more", 3, "new")
            and more[record.id].run_id == first.run_id)
    assert history(uri, in_mlflow(uri, record.id), "terms/square") == [(10, 1.0), (20, 0.5), (30, 1 / 3), (40, 0.1)]
    assert [v for _, v in history(uri, in_mlflow(uri, record.id), "weights/pull")] == [0.0, 0.3]
    record.close(), other.close()


def test_a_change_without_new_lines_is_seen(uri: str, journal: Journal) -> None:
    record = begun(journal)
    to_mlflow(journal, uri=uri)
    record.state("done", step=30, seconds=0.3), record.close()
    assert [e.what for e in to_mlflow(journal, uri=uri)] == ["more"] and in_mlflow(uri, record.id).info.status == "FINISHED"
    journal.note(record.id, "well <done> & over"), journal.keep(record.id)
    assert [(e.what, e.points) for e in to_mlflow(journal, uri=uri)] == [("more", 0)]
    tags = in_mlflow(uri, record.id).data.tags
    assert tags["mlflow.note.content"] == "well <done> & over" and tags["latentlab.kept"] == "True"


def test_steps_that_were_trained_anew_stand_once(uri: str, journal: Journal) -> None:
    record = begun(journal)
    record.close()
    to_mlflow(journal, uri=uri)
    back = journal.go_on(record.id, step=20)
    back.log(30, 0.3, {"square": 7.0, "pull": 0.5}, {"square": 1.0, "pull": 0.0}, 10)
    (afresh,) = to_mlflow(journal, uri=uri)
    assert afresh.what == "anew" and history(uri, in_mlflow(uri, record.id), "terms/square") == [(10, 1.0), (20, 0.5), (30, 7.0)]
    assert [e.what for e in to_mlflow(journal, uri=uri)] == ["same"]
    back.close()


def test_an_export_that_was_cut_short_is_made_anew(uri: str, journal: Journal, monkeypatch) -> None:
    record = begun(journal, lines=5)
    with monkeypatch.context() as broken:
        broken.setattr(module, "send_files", lambda *words: 1 / 0)
        with pytest.raises(ZeroDivisionError): to_mlflow(journal, uri=uri)
    (afresh,) = to_mlflow(journal, uri=uri)
    assert (afresh.what == "anew" and len(history(uri, in_mlflow(uri, record.id), "terms/square")) == 5
            and len(Store(uri, "latentlab").known()) == 1)
    record.close()


@pytest.mark.parametrize("odd", [NAN, float("inf"), -float("inf")])
def test_numbers_that_are_not_finite_are_kept_and_counted(odd: float, uri: str, journal: Journal) -> None:
    record = begun(journal, lines=2)
    record.log(30, 0.3, {"square": odd, "pull": 0.5}, {"square": 1.0, "pull": 0.0}, 10)
    record.judged(30, {"level": odd}, [])
    (done,) = to_mlflow(journal, uri=uri)
    there = in_mlflow(uri, record.id)
    value = history(uri, there, "terms/square")[-1][1]
    assert done.not_finite == 2 and there.data.tags["latentlab.not_finite"] == "terms/square 1 times, figures/level 1 times"
    assert math.isnan(value) if math.isnan(odd) else value == odd
    record.close()


def test_long_values_are_cut_and_named(uri: str, journal: Journal) -> None:
    record = begun(journal)
    record.facts["settings"] = record.facts["settings"] | {"story": "s" * 9000, "short": "s" * PARAMETER}
    record.save()
    journal.note(record.id, "n" * 7000)
    (done,) = to_mlflow(journal, uri=uri)
    data = in_mlflow(uri, record.id).data
    assert done.cut == ("story", "mlflow.note.content") and data.tags["latentlab.cut"] == "story, mlflow.note.content"
    assert (len(data.params["story"]) == PARAMETER and data.params["story"].endswith(" [cut: 9000 characters]")
            and data.params["short"] == "s" * PARAMETER)
    assert len(data.tags["mlflow.note.content"]) == TAG and data.tags["mlflow.note.content"].endswith(" [cut: 7000 characters]")
    record.close()


def test_a_journal_of_any_name_is_exported(tmp_path: Path, monkeypatch) -> None:
    "Umlauts, other scripts and blanks in both folders, and a note that is too long for MLflow."
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    root, store = tmp_path / "läb bõok 文", f"file://{tmp_path}/ml flow"
    id = Trainer(MeanRun().replace(steps=3), journal=root).fit(progress=False).recorder.id
    Journal(root).note(id, "é" * 20_000)
    (first,), (again,) = to_mlflow(root, uri=store), to_mlflow(root, uri=store)
    assert (first.what, first.cut, again.run_id) == ("new", ("mlflow.note.content",), first.run_id) and again.what != "new"
    assert in_mlflow(store, id).data.tags["mlflow.note.content"].endswith(" [cut: 20000 characters]")


def test_files_arrive_as_they_are(uri: str, journal: Journal, tmp_path: Path) -> None:
    record = begun(journal)
    record.judged(10, {"level": 0.5}, [Verdict(name="range", level="bad", value=2.0, threshold=1.05, sentence="too high",
                                               remedy="lower it")])
    record.picture("last", {"level": np.ones((1, 1, 4, 4))})
    (journal.folder(record.id) / "figures" / "whole.png").write_bytes(b"png")
    to_mlflow(journal, uri=uri, draw=lambda views: json.dumps({n: v.shape for n, v in views.items()}).encode())
    client, run = Store(uri, "latentlab").client, in_mlflow(uri, record.id)
    assert {a.path for a in client.list_artifacts(run.info.run_id)} == {"run.json", "metrics.jsonl", "checks.jsonl", "code.diff", "figures"}
    assert {a.path for a in client.list_artifacts(run.info.run_id, "figures")} == {"figures/last.npz", "figures/last.png",
                                                                                   "figures/whole.png"}
    fetched = Path(client.download_artifacts(run.info.run_id, "checks.jsonl", str(tmp_path)))
    assert (fetched.read_bytes() == (journal.folder(record.id) / "checks.jsonl").read_bytes()
            and run.data.tags["latentlab.checks"] == "range bad")
    drawn = Path(client.download_artifacts(run.info.run_id, "figures/last.png", str(tmp_path)))
    assert json.loads(drawn.read_bytes()) == {"level": [1, 1, 4, 4]}
    record.close()


def test_a_picture_of_a_run_is_drawn_with_the_package_s_own_plots(uri: str, journal: Journal) -> None:
    from latentlab.journal.report import plot_tiles
    from latentlab.plots.style import figure_png

    trainer = Trainer(MeanRun().replace(steps=20), journal=journal).fit(progress=False)
    to_mlflow(journal, uri=uri, draw=lambda views: figure_png(plot_tiles(views)))
    client, run = Store(uri, "latentlab").client, in_mlflow(uri, trainer.recorder.id)
    assert "figures/last.png" in {a.path for a in client.list_artifacts(run.info.run_id, "figures")}


def test_only_the_runs_asked_for_and_damaged_ones_said(uri: str, journal: Journal) -> None:
    records = [begun(journal, {"seed": seed}) for seed in range(3)]
    assert [e.id for e in to_mlflow(str(journal.root), uri=uri, ids=[records[1].id])] == [records[1].id]
    for record in records: record.close()
    (journal.folder(records[0].id) / "run.json").write_text("{cut")
    found = {e.id: e.what for e in to_mlflow(journal, uri=uri)}
    assert found == {records[0].id: "damaged", records[1].id: "same", records[2].id: "new"}
    with pytest.raises(ValueError, match="`ids` must be runs of runs: got nobody"): to_mlflow(journal, uri=uri, ids=["nobody"])
    assert to_mlflow(journal, uri=uri, ids=[]) == []


def test_many_runs_and_many_numbers(uri: str, journal: Journal) -> None:
    "More than one batch of numbers, and a listing of more runs than one."
    record = begun(journal, lines=1300)
    record.close()
    for seed in range(1, 4): begun(journal, {"seed": seed}, lines=1).close()
    to_mlflow(journal, uri=uri)
    assert (len(history(uri, in_mlflow(uri, record.id), "terms/square")) == 1300
            and [e.what for e in to_mlflow(journal, uri=uri)] == ["same"] * 4)


def test_a_damaged_line_is_counted(uri: str, journal: Journal) -> None:
    record = begun(journal)
    record.close()
    with (journal.folder(record.id) / "metrics.jsonl").open("a") as file: file.write("{half a line\n")
    to_mlflow(journal, uri=uri)
    assert in_mlflow(uri, record.id).data.tags["latentlab.damaged_lines"] == "1"


def test_a_folder_that_mlflow_refuses_says_what_to_set(tmp_path: Path, monkeypatch, journal: Journal) -> None:
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    with pytest.raises(ValueError, match="`uri` must be a store that MLflow can write: .*MLFLOW_ALLOW_FILE_STORE=true"):
        to_mlflow(journal, uri=(tmp_path / "no").as_uri())


def test_a_database_works_where_mlflow_can_open_one(tmp_path: Path, journal: Journal, uri: str) -> None:
    "With mlflow-skinny alone there is no database, and the message says which package has it."
    place, record = f"sqlite:///{tmp_path / 'runs.db'}", begun(journal)
    record.close()
    if importlib.util.find_spec("sqlalchemy") is None:
        with pytest.raises(ValueError, match="`uri` must be a store .* sqlite the package mlflow instead of mlflow-skinny"):
            to_mlflow(journal, uri=place)
    else: assert [e.what for e in (*to_mlflow(journal, uri=place), *to_mlflow(journal, uri=place))] == ["new", "same"]


def test_an_experiment_in_the_trash_is_refused(uri: str, journal: Journal) -> None:
    store = Store(uri, "old")
    store.client.delete_experiment(store.experiment)
    with pytest.raises(ValueError, match="`experiment` must not be deleted: got old"): to_mlflow(journal, uri=uri, experiment="old")


def test_a_missing_library_is_named(uri: str, journal: Journal, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(ModuleNotFoundError, match="`mlflow` must be installed to export runs: got no such module. "
                                                  'pip install "latentlab.mlflow.'):
        to_mlflow(journal, uri=uri)


def test_the_module_alone_loads_no_mlflow() -> None:
    done = subprocess.run([sys.executable, "-c", "import sys, latentlab.journal.mlflow; print('mlflow' in sys.modules)"],
                          capture_output=True, text=True, env=dict(os.environ))
    assert done.stdout.strip() == "False", done.stderr


def test_names_and_texts() -> None:
    assert name_of("terms", "nll") == "terms/nll" and len({name_of("terms", n) for n in ("a/b", "a b", "a_b", "a$b", "ä")}) == 5
    assert cut("x" * 10, 10) == "x" * 10 and len(cut("x" * 100, 50)) == 50
    assert points_of(surviving([{"step": 1, "terms": {"a": 1}}, {"step": 0, "went_on": 1.0}, {"step": 1, "terms": {"a": 2}}]),
                     0.0)[0].value == 2.0
