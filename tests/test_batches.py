"""Batches: the order is a function of (seed, epoch), the position a function of the step, on any device and from any thread."""

import threading

import pytest
import torch

from latentlab.data.batches import Batches, check_image_set, draw_order, to_unit


def pictures(n=23, seed=0): return torch.randint(0, 256, (n, 3, 5, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("n,batch", [(23, 5), (20, 5), (7, 7), (7, 1), (2, 2), (1, 1)])
def test_each_epoch_shows_each_image_at_most_once(n, batch):
    batches = Batches(pictures(n), batch, 3)
    assert batches.per_epoch == n // batch
    for epoch in range(5):
        rows = torch.cat([batches.rows(epoch * batches.per_epoch + k) for k in range(batches.per_epoch)])
        assert len(rows) == len(rows.unique()) == n // batch * batch
        assert torch.equal(rows, draw_order(n, 3, epoch)[:len(rows)])


def test_any_step_in_any_order_equals_a_fresh_start():
    x = pictures()
    forward = [Batches(x, 4, 1).at(t).x for t in range(40)]
    one = Batches(x, 4, 1)
    for t in torch.randperm(40, generator=torch.Generator().manual_seed(0)).tolist(): assert torch.equal(one.at(t).x, forward[t])


def test_values_and_types():
    x = pictures()
    batch = Batches(x, 6, 0).at(3).x
    assert batch.dtype == torch.float32 and batch.shape == (6, 3, 5, 4) and 0 <= batch.min() and batch.max() <= 1
    assert torch.equal(batch, x[Batches(x, 6, 0).rows(3)].float() / 255)
    assert torch.equal(Batches(x.float() / 255, 6, 0).at(3).x, batch)
    assert torch.equal(x, pictures()), "the images stay as they were"
    assert Batches(x.half() / 255, 6, 0).at(0).x.dtype == torch.float16


def test_torch_s_own_stream_is_left_alone():
    torch.manual_seed(1)
    before = torch.rand(1)
    torch.manual_seed(1)
    Batches(pictures(), 4, 0).at(11)
    assert torch.equal(torch.rand(1), before)


def test_seeds_give_orders_of_their_own():
    orders = {tuple(draw_order(30, seed, epoch).tolist()) for seed in range(10) for epoch in range(10)}
    assert len(orders) == 100


def test_two_threads_read_whole_orders():
    batches, wrong = Batches(pictures(), 4, 0), []
    expected = [Batches(pictures(), 4, 0).rows(t) for t in range(60)]

    def read(shift):
        for t in range(300):
            if not torch.equal(batches.rows((t * 7 + shift) % 60), expected[(t * 7 + shift) % 60]): wrong.append(t)

    threads = [threading.Thread(target=read, args=(s,)) for s in (0, 31)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert not wrong


@pytest.mark.parametrize("batch", [0, -1, 24, True])
def test_batch_sizes_that_are_refused(batch):
    with pytest.raises(ValueError, match="`batch` must be a whole number from 1 to the 23 images"): Batches(pictures(), batch, 0)


def test_wrong_types_are_refused():  # a TypeError where types are checked, as here; a ValueError with its message in the notebook
    for call in (lambda: Batches(pictures(), 2.5, 0), lambda: Batches(pictures(), "4", 0),
                 lambda: Batches(pictures(), 4, 0).at(1.0), lambda: Batches(pictures(), 4, 0.5)):
        with pytest.raises((ValueError, TypeError)): call()
    with pytest.raises(ValueError, match="`step` must be a whole number of at least 0: got -3"): Batches(pictures(), 4, 0).at(-3)
    with pytest.raises(ValueError, match="`seed` must be"): Batches(pictures(), 4, -1)


def spoilt(value, where=5):
    x = torch.rand(9, 2, 4, 4, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.05
    x[where] = value if isinstance(value, torch.Tensor) else torch.where(torch.arange(4) == 2, value, x[where])
    return x


@pytest.mark.parametrize("images,message", [
    (spoilt(torch.full((2, 4, 4), 0.25)), r"must not be constant: got 1 of 9 that break this, the first at 5 \(0.25 to 0.25\).*subset"),
    (torch.zeros(3, 1, 4, 4), "must not be constant: got 3 of 3 that break this, the first at 0"),
    (torch.full((3, 1, 4, 4), 7, dtype=torch.uint8), "must not be constant"),
    (spoilt(float("nan")), "must be finite: got 1 of 9 that break this, the first at 5"),
    (spoilt(float("inf")), "must be finite"), (spoilt(-0.01), "must lie from 0 to 1"),
    (spoilt(1.5, where=0), "must lie from 0 to 1.*first at 0"),
    (torch.rand(4, 4, 4) * 255, r"must be \[batch, channel, height, width\]"), (torch.zeros(0, 1, 4, 4), "with at least one image"),
    (torch.ones(2, 1, 4, 4, dtype=torch.int64), "must be uint8 from 0 to 255 or floats from 0 to 1: got torch.int64")])
def test_images_that_cannot_be_explained(images, message):
    with pytest.raises(ValueError, match=message): check_image_set(images)
    with pytest.raises((ValueError, TypeError)): Batches(images, 1, 0)


def test_to_unit():
    assert to_unit(torch.tensor([0, 51, 255], dtype=torch.uint8)).tolist() == [0.0, pytest.approx(0.2), 1.0]
    x = torch.rand(3)
    assert to_unit(x) is x


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_same_batches_on_a_gpu():
    x = pictures()
    here, there = Batches(x, 4, 0), Batches(x.cuda(), 4, 0)
    for t in range(20):
        assert torch.equal(here.rows(t), there.rows(t).cpu())
        assert torch.allclose(here.at(t).x, there.at(t).x.cpu(), atol=1e-7)
