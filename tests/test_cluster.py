"""Sweeps on Dask and on SLURM jobs: the same bits as the pool, a killed worker costs one try, a stop leaves checkpoints, and
what is done is found.
"""
import importlib
import logging
import operator
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from distributed import Client, LocalCluster
from latentlab.journal.journal import Journal
from latentlab.sweeps import cluster as module
from latentlab.sweeps.cluster import SlurmCall, SlurmJob, called, needed, on_dask, on_slurm
from latentlab.sweeps.plan import Plan, grid
from latentlab.sweeps.sweep import Sweep
from latentlab.sweeps.workers import Outcome, WorkerDied, known_run, train_one
from latentlab.train.example import MeanRun
from latentlab.train.trainer import Trainer

QUIET = {"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0", "silence_logs": logging.CRITICAL}
PLAN = Plan(base=MeanRun().replace(steps=120), changes=grid({"noise": [0.1, 0.2]}), seeds=range(2), name="both")


@pytest.fixture(scope="module")
def client():
    "Two single-threaded worker processes, watched by nannies."
    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    with LocalCluster(n_workers=2, threads_per_worker=1, **QUIET) as cluster, Client(cluster) as client: yield client


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Journal:
    "The same plan, trained in this process as a worker of the pool does it."
    journal = Journal(tmp_path_factory.mktemp("here"))
    for run in PLAN.runs(): assert train_one(run, journal.root).state == "done"
    return journal


def finals(journal) -> dict: return {row["digest"]: row["metrics"] for row in journal.rows()}


def until(condition, seconds: float = 180.0):  # a job imports torch first, which takes a minute on a busy machine
    "What a condition gives once it gives something."
    limit = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < limit, "nothing happened"
        time.sleep(0.05)
    return found


def at_work(journal, *, checkpoint: bool = True) -> list[dict]:
    "Runs that are trained now, and have left a checkpoint."
    return [row for row in journal.rows() if row["state"] == "running"
            and (not checkpoint or any((journal.folder(row["id"]) / "checkpoints").glob("*.ckpt")))]


def lines(journal, id: str, word: str) -> list[str]:
    return [line for line in (journal.folder(id) / "metrics.jsonl").read_text().splitlines() if word in line]


def both_there(client: Client) -> None:
    "Wait for both workers, one of which another test may have killed, with everything imported: one alone would train every short run."
    client.wait_for_workers(2)
    client.run(lambda: importlib.import_module("latentlab.sweeps.workers") and None)


def swept(plan: Plan, root: Path, backend, workers: int = 2) -> Sweep: return Sweep(plan, root, workers=workers, backend=backend)


# Calls


def test_a_call_without_a_question_is_not_asked_one() -> None:
    assert called(os.path.basename, ("a/b",), lambda: False) == "b"


def test_a_call_that_shall_not_begin_does_not() -> None:
    assert called(os._exit, (1,), lambda: True) == Outcome(state="interrupted")


@pytest.mark.slow
def test_a_run_told_to_stop_goes_on_with_the_same_bits(tmp_path: Path) -> None:
    journal, run, asked = Journal(tmp_path / "cut"), MeanRun().replace(steps=800), []
    assert called(train_one, (run, journal.root), lambda: len(asked) > 1 or bool(asked.append(1))) == Outcome(state="interrupted")
    cut = known_run(journal, run)
    assert cut["state"] == "interrupted" and 0 < cut["steps"] < 800
    done = called(train_one, (run, journal.root), lambda: False)
    whole = Journal(tmp_path / "whole")
    train_one(run, whole.root)
    assert (done.state, done.id) == ("done", cut["id"]) and finals(journal) == finals(whole)


def test_an_error_in_a_run_that_can_be_stopped_is_its_outcome(tmp_path: Path) -> None:
    failed = called(train_one, (MeanRun().replace(steps=50, poison=10), tmp_path), lambda: False)
    assert failed.state == "failed" and "`pull` must stay finite" in failed.error and Journal(tmp_path).rows()[0]["state"] == "failed"


@pytest.mark.parametrize("name", ["distributed", "submitit"])
def test_a_missing_library_is_named(name: str, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    backend = on_dask("tcp://127.0.0.1:1") if name == "distributed" else on_slurm(tmp_path)
    with pytest.raises(ModuleNotFoundError, match=f'`{name}` must be installed to train on .* pip install "latentlab.scale'): backend(1)


def test_the_module_loads_neither_library() -> None:
    done = os.popen(f"{sys.executable} -c 'import sys, latentlab.sweeps.cluster; print([n for n in (\"distributed\", \"dask\", "
                    "\"submitit\") if n in sys.modules])'").read()
    assert done.strip() == "[]" and needed("submitit", "scale", "to train").__name__ == "submitit" and not module.STOPPED


# Dask


@pytest.mark.slow
def test_dask_trains_what_the_pool_trains(client: Client, here: Journal, tmp_path: Path) -> None:
    sweep = swept(PLAN, tmp_path, on_dask(client)).start().wait(progress=False)
    assert sweep.progress().done == 4 and finals(sweep.journal) == finals(here) and client.status == "running"
    assert len({row["by"]["pid"] for row in sweep.journal.rows()}) == 2 and {row["sweep"] for row in sweep.journal.rows()} == {"both"}


@pytest.mark.slow
def test_dask_finds_what_was_done_elsewhere_and_goes_on(client: Client, here: Journal, tmp_path: Path) -> None:
    "Two runs are done and one is begun by this process; an address is as good as a client."
    runs = PLAN.runs()
    for run in runs[:2]: train_one(run, tmp_path)
    Trainer(runs[2], journal=tmp_path).fit(50, progress=False)
    sweep = swept(PLAN, tmp_path, on_dask(client.scheduler.address)).start().wait(progress=False)
    progress = sweep.progress()
    assert (progress.found, progress.done, len(sweep.journal.rows())) == (2, 2, 4) and finals(sweep.journal) == finals(here)


@pytest.mark.slow
def test_a_killed_dask_worker_costs_its_run_one_try(client: Client, tmp_path: Path) -> None:
    sweep = swept(Plan(base=MeanRun().replace(steps=1500), seeds=range(3)), tmp_path, on_dask(client)).start()
    row = until(lambda: at_work(sweep.journal))[0]
    os.kill(row["by"]["pid"], signal.SIGKILL)
    sweep.wait(progress=False, timeout=300)
    assert sweep.progress().done == 3 and sorted(sweep.tries.values()) == [1, 1, 2]
    assert [r["state"] for r in sweep.journal.rows()] == ["done"] * 3 and len(lines(sweep.journal, row["id"], "went_on")) == 1


@pytest.mark.slow
def test_a_run_that_kills_every_worker_is_given_up(client: Client, tmp_path: Path) -> None:
    "Dask alone would hand it to four workers before it said a word."
    sweep = Sweep(Plan(base=MeanRun().replace(steps=10**6)), tmp_path, workers=1, backend=on_dask(client), retries=1).start()
    killed: list[int] = []
    while sweep.state == "running":
        for row in at_work(sweep.journal):
            if row["by"]["pid"] in killed: continue
            os.kill(row["by"]["pid"], signal.SIGKILL)
            killed.append(row["by"]["pid"])
        time.sleep(0.05)
    (outcome,), rows = sweep.outcomes.values(), sweep.journal.rows()
    assert ((outcome.state, len(killed), list(sweep.tries.values())) == ("failed", 2, [2]) and "WorkerDied" in outcome.error
            and "given out 2 times" in outcome.error)
    assert [row["state"] for row in rows] == ["failed"]


@pytest.mark.slow
def test_a_stopped_dask_sweep_leaves_checkpoints_and_goes_on(client: Client, tmp_path: Path) -> None:
    both_there(client)
    plan = Plan(base=MeanRun().replace(steps=4000), seeds=range(4))
    sweep = swept(plan, tmp_path, on_dask(client)).start()
    until(lambda: len(at_work(sweep.journal)) == 2)
    sweep.stop()
    cut = sweep.journal.rows()
    assert sweep.state == "stopped" and [row["state"] for row in cut] == ["interrupted"] * 2
    assert {o.state for o in sweep.outcomes.values()} == {"interrupted"} and not any(client.run(lambda: set(module.AT_WORK)).values())
    sweep.start().wait(progress=False)
    assert (sweep.progress().done == 4 and {row["id"] for row in cut} < {row["id"] for row in sweep.journal.rows()}
            and len(sweep.journal.rows()) == 4)


@pytest.mark.slow
def test_one_call_at_a_time_in_a_worker(tmp_path: Path) -> None:
    with LocalCluster(n_workers=1, threads_per_worker=3, processes=True, **QUIET) as cluster, Client(cluster) as client:
        sweep = swept(Plan(base=MeanRun().replace(steps=600), seeds=range(3)), tmp_path, on_dask(client)).start()
        most = 0
        while sweep.state == "running": most = max(most, len(at_work(sweep.journal, checkpoint=False)))
        assert sweep.progress().done == 3 and most == 1


@pytest.mark.parametrize("wrong", [8786, None])
def test_another_client_is_refused(wrong) -> None:
    with pytest.raises(ValueError, match=f"`client` must be a Client or an address: got {type(wrong).__name__}"): on_dask(wrong)(2)


# SLURM, by submitit's local executor


@pytest.mark.slow
def test_jobs_train_what_the_pool_trains(here: Journal, tmp_path: Path) -> None:
    sweep = swept(PLAN, tmp_path / "runs", on_slurm(tmp_path / "jobs", cluster="local")).start().wait(progress=False)
    assert sweep.progress().done == 4 and finals(sweep.journal) == finals(here)
    again = swept(PLAN, tmp_path / "runs", on_slurm(tmp_path / "jobs", cluster="local")).start().wait(progress=False)
    assert again.progress().found == 4


@pytest.mark.slow
def test_a_killed_job_costs_its_run_one_try(tmp_path: Path) -> None:
    sweep = swept(Plan(base=MeanRun().replace(steps=3000)), tmp_path / "runs", on_slurm(str(tmp_path / "jobs"), cluster="local"),
                  workers=1).start()
    row = until(lambda: at_work(sweep.journal))[0]
    os.kill(row["by"]["pid"], signal.SIGKILL)
    sweep.wait(progress=False, timeout=300)
    assert sweep.progress().done == 1 and list(sweep.tries.values()) == [2] and len(lines(sweep.journal, row["id"], "went_on")) == 1


@pytest.mark.slow
def test_a_job_whose_time_is_over_comes_back(tmp_path: Path) -> None:
    sweep = swept(Plan(base=MeanRun().replace(steps=4000)), tmp_path / "runs", on_slurm(tmp_path / "jobs", cluster="local"),
                  workers=1).start()
    row = until(lambda: at_work(sweep.journal))[0]
    os.kill(row["by"]["pid"], signal.SIGUSR2)
    sweep.wait(progress=False, timeout=300)
    assert sweep.progress().done == 1 and list(sweep.tries.values()) == [1] and len(lines(sweep.journal, row["id"], "went_on")) == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_cancelled_job_leaves_a_checkpoint(number: int, tmp_path: Path) -> None:
    sweep = swept(Plan(base=MeanRun().replace(steps=10**6)), tmp_path / "runs", on_slurm(tmp_path / "jobs", cluster="local"),
                  workers=1).start()
    row = until(lambda: at_work(sweep.journal))[0]
    os.kill(row["by"]["pid"], number)
    sweep.wait(progress=False, timeout=300)
    (outcome,), (left,) = sweep.outcomes.values(), sweep.journal.rows()
    assert (outcome.state == left["state"] == "interrupted" and left["id"] == row["id"]
            and sweep.journal.run(left["id"]).checkpoint().exists())


@pytest.mark.slow
def test_a_stopped_sweep_of_jobs_leaves_checkpoints(tmp_path: Path) -> None:
    sweep = swept(Plan(base=MeanRun().replace(steps=10**6), seeds=range(5)), tmp_path / "runs",
                  on_slurm(tmp_path / "jobs", cluster="local")).start()
    until(lambda: len(at_work(sweep.journal)) == 2)
    sweep.stop()
    assert (sweep.state == "stopped" and [row["state"] for row in sweep.journal.rows()] == ["interrupted"] * 2
            and not list((tmp_path / "jobs").glob("stop-*")))
    assert [o.state for o in sweep.outcomes.values()] == ["interrupted"] * 4


@pytest.mark.slow
def test_a_job_that_raises_says_so(tmp_path: Path) -> None:
    backend = on_slurm(tmp_path, cluster="local")(1)
    with pytest.raises(Exception, match="ZeroDivisionError"): backend.submit(operator.truediv, 1, 0).result(60)
    with pytest.raises(WorkerDied, match="ended without a result: killed"): backend.submit(os._exit, 9).result(60)
    backend.close()


FAKE = {
    "sbatch": "#!/bin/sh\necho 'Submitted batch job 4711'\n",
    "srun": "#!/bin/sh\n",
    "sacct": "#!/bin/sh\necho 'JobID|State|NodeList'\necho '4711|PENDING|'\n",
    "scancel": "#!/bin/sh\necho $* >> \"$(dirname $0)/cancelled\"\n",
}


def test_slurm_is_asked_for_what_a_job_may_use_and_a_waiting_job_is_cancelled(tmp_path: Path, monkeypatch) -> None:
    "SLURM's commands are scripts that never begin a job."
    programs, folder = tmp_path / "programs", tmp_path / "jobs"
    programs.mkdir()
    for name, text in FAKE.items(): (programs / name).write_text(text), (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    job = SlurmJob(partition="short", minutes=90, cpus=2, memory_gb=6.0, gpus=1)
    sweep = swept(Plan(base=MeanRun(), seeds=range(3)), tmp_path / "runs", on_slurm(folder, job), workers=1).start()
    script = until(lambda: next((text for path in folder.glob("*.sh") if (text := path.read_text())), ""))  # written a moment after it is made
    for words in ("partition=short", "time=90", "cpus-per-task=2", "mem=6GB", "gpus-per-node=1", "job-name=latentlab", "nodes=1"):
        assert f"#SBATCH --{words}\n" in script, script
    until(lambda: list(folder.glob("4711*")))
    sweep.stop(timeout=30)
    assert (sweep.state == "stopped" and (programs / "cancelled").read_text() == "4711\n"
            and {o.state for o in sweep.outcomes.values()} == {"interrupted"})


def test_what_a_job_may_use_is_checked() -> None:
    words = SlurmJob(partition="long", gpus=2, cpus=4, memory_gb=32.0, minutes=60).parameters()
    assert words == {"name": "latentlab", "timeout_min": 60, "cpus_per_task": 4, "mem_gb": 32.0, "gpus_per_node": 2,
                     "slurm_partition": "long"}
    for wrong in ({"gpus": -1}, {"cpus": 0}, {"memory_gb": 0.1}, {"minutes": 1}):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` must be at least"): SlurmJob(**wrong)
    assert SlurmCall(len, ("four",), file=Path("never"), threads=1)() == 4
