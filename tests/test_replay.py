"A step that is recorded and replayed on a GPU is the step itself."
import pytest
import torch
from torch import nn

from latentlab.core.batch import Batch
from latentlab.core.registry import find_family
from latentlab.core.settings import Live
from latentlab.train import session as steps_of
from latentlab.train.replay import Recorded
from latentlab.train.session import Session

needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def parts(session, index, batch, live):
    numbers = steps_of.group_gradients(session, index, batch, live)
    return [value.clone() for value in numbers.values()] + [p.grad.clone() for p in session.groups[index].parameters if p.grad is not None]


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("family", ["hvae", "csvae", "compvae"])
def test_a_replayed_step_is_the_step(family):
    run = find_family(family).experiment()
    session, live = Session(run, run.build(torch.device("cuda"))), Live(run, "cuda")
    assert session.replays
    for _ in range(steps_of.REST + 3): steps_of.step(session, live)
    assert all(kept.recorded is not None for kept in session.recorded.values())
    for later in (1, 7, 40):
        session.step += later
        session.model.steps += later
        batch, _ = steps_of.next_batch(session, live)
        for index in range(len(session.groups)):
            replayed = parts(session, index, batch, live)
            session.replays = False
            plain = parts(session, index, batch, live)
            session.replays = True
            assert len(replayed) == len(plain)
            for a, b in zip(replayed, plain): torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-4 * max(1.0, b.abs().max().item()))


def test_nothing_is_recorded_without_a_gpu_or_where_it_is_off():
    run = find_family("hvae").experiment()
    assert not Session(run, run.build(torch.device("cpu"))).replays
    if torch.cuda.is_available(): assert not Session(run.replace(replay=False), run.build(torch.device("cuda"))).replays


def test_a_batch_of_another_kind_or_another_setting_is_recorded_anew(monkeypatch):
    "Without a GPU: the graph is a stand-in that does the work itself and counts how often it was made."
    made = []

    class StandIn(Recorded):
        def __init__(self, work, batch, parameters, generator):
            self.work, self.first = work, batch
            made.append(self)

        def __call__(self, batch): return self.work(batch)

    monkeypatch.setattr(steps_of, "Recorded", StandIn)
    run = find_family("hvae").experiment().replace({"points": 600, "batch": 50})
    alone, replaying = (Session(run, run.build(torch.device("cpu"))) for _ in range(2))
    replaying.replays, live, other = True, Live(run), Live(run.replace(beta=0.5))
    for settings, count in ((live, 0), (live, 1), (other, 1), (other, 2), (live, 2)):
        for _ in range(steps_of.REST if count in (0, 2) and settings is live or settings is other and count == 1 else 1):
            for one in (alone, replaying): steps_of.step(one, settings)
        assert len(made) == count
    assert all(torch.equal(a, b) for a, b in zip(alone.model.parameters(), replaying.model.parameters()))
    kept = replaying.recorded[0]
    small, _ = steps_of.next_batch(replaying, live)
    steps_of.group_gradients(replaying, 0, Batch(x=small.x[:10], index=small.index[:10], y=None if small.y is None else small.y[:10]), live)
    assert replaying.recorded[0] is not kept and isinstance(replaying.model, nn.Module)
