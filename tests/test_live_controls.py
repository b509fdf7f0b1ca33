"Widgets for the live settings of a real family, through the facade: refused values, conditions, a panel beside them."

import pytest

import latentlab as ll
from latentlab.facade import make_run
from latentlab.panels.panel import Panel


@pytest.fixture(scope="module")
def trainer() -> ll.Trainer:
    return ll.Trainer(make_run("hvae", dict(data="moons", points=400, batch=32, device="cpu")))


def test_a_refused_value_is_said_and_put_back(trainer: ll.Trainer) -> None:
    mine = ll.controls(trainer, "warmup_steps", "beta")
    mine["warmup_steps"].value = 200_000
    assert mine["warmup_steps"].value == trainer.run.get("warmup_steps") == 0
    assert mine.words.value.startswith("`warmup_steps` must be at most 100000 steps: got 200000")
    mine["warmup_steps"].value = 50
    assert trainer.run.get("warmup_steps") == 50 and mine.words.value == ""


def test_what_means_nothing_now_cannot_be_moved(trainer: ll.Trainer) -> None:
    mine = ll.controls(trainer)
    assert mine["anneal_steps"].disabled and not mine["scale_floor"].disabled
    mine["scale_kind"].value = "annealed"
    assert trainer.run.get("scale_kind") == "annealed" and not mine["anneal_steps"].disabled and mine["scale_floor"].disabled
    trainer.rebuild(scale_kind="learnt", layers=1)
    assert mine["scale_kind"].value == "learnt" and mine["anneal_steps"].disabled


def test_a_logarithm_of_whole_numbers_is_whole(trainer: ll.Trainer) -> None:
    mine = ll.controls(trainer, "samples")
    mine["samples"].value = 3.4
    assert trainer.run.get("samples") == 3
    mine["samples"].value = 1000.0
    assert trainer.run.get("samples") == 1000
    trainer.set(samples=1)
    assert mine["samples"].value == 1


def test_a_panel_and_its_controls_move_one_another(trainer: ll.Trainer) -> None:
    panel = Panel(trainer, name="controls")
    try:
        mine = ll.controls(panel, "beta")
        mine["beta"].value = 2.0
        panel.tick()
        assert panel.last.values["beta"] == 2.0
        panel.trainer.set(beta=3.0)
        assert mine["beta"].value == 3.0
    finally: panel.close()
    mine["beta"].value = 1.5  # the panel was closed and its trainer stopped: what it would go on with
    assert panel.trainer.run.get("beta") == 1.5 and not panel.trainer.busy


def test_closed_controls_are_told_nothing(trainer: ll.Trainer) -> None:
    mine, others = ll.controls(trainer, "beta"), ll.controls(trainer, "beta")
    mine.close()
    assert others.follow in trainer.watchers and mine.follow not in trainer.watchers
    trainer.set(beta=2.5)
    assert others["beta"].value == 2.5
