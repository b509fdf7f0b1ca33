"Features that are computed once: the same run to the bit as one that computes them at every step, over a resume, within a budget."
import tempfile

import pytest
import torch
from latentlab.contract import all_weights, same_weights
from latentlab.data.sources import with_images
from latentlab.families.nem import experiment
from latentlab.families.nem.experiment import NEMRun
from latentlab.nn.features import DiskRows, FeatureCache
from latentlab.train.trainer import Trainer

SMALL = {"train.batch": 16, "train.steps": 12, "model.layers": 2, "model.width": 4, "train.check_every": 6, "train.device": "cpu", "encoder": "simclr"}


def cache_of(trainer): return trainer.session.batches.also.__closure__[0].cell_contents


def run_of(channels=1, **more):
    images = torch.randint(0, 256, (60, channels, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return with_images(NEMRun().replace(SMALL | more), images)


def terms(trainer): return {name: tuple(values) for name, values in trainer.session.curves.fetch().values.items()}


@pytest.mark.parametrize("more", [{}, {"target": "pair"}, {"complement_scale": 0.5, "neighbourhood": "train"}], ids=["embedding", "pair", "complement"])
def test_a_run_with_a_cache_is_the_run_without_one_to_the_bit(more, monkeypatch, tmp_path):
    run = run_of(**more)  # 48 images to train with: three batches an epoch, four epochs
    kept = Trainer(run, folder=tmp_path).fit(12, progress=False)
    cache = cache_of(kept)
    assert cache.full and cache.left == 0 and cache.kept and "kept: " in kept.session.setup.info["features"]
    broken = Trainer(run, folder=tmp_path / "cut").fit(8, progress=False)
    broken.checkpoint()
    again = Trainer(run, folder=tmp_path / "cut").resume().fit(4, progress=False)  # whose cache is empty
    assert not cache_of(again).full
    monkeypatch.setattr(experiment, "IN_MEMORY", 0)
    filed = Trainer(run).fit(12, progress=False)
    assert cache_of(filed).full and cache_of(filed).on_disk and filed.session.setup.info["features"].endswith(" in a temporary file")
    monkeypatch.setenv("LATENTLAB_MEMORY", "0.0005")
    plain = Trainer(run).fit(12, progress=False)
    assert not cache_of(plain).kept and "not kept: " in plain.session.setup.info["features"] and "0 MB" in plain.session.setup.info["features"]
    for one in (kept, again, filed):
        assert terms(one) == terms(plain) and same_weights(all_weights(one), all_weights(plain))
        assert one.measure().figures == plain.measure().figures


def test_the_encoder_reads_a_clean_image_no_more_once_it_is_known(monkeypatch):
    trainer, read = Trainer(run_of()), []
    made = FeatureCache.compute
    monkeypatch.setattr(FeatureCache, "compute", lambda self, x: read.append(len(x)) or made(self, x))
    trainer.fit(12, progress=False)
    assert len(read) == 3 + 4, "one epoch, and four batches that are compared"


def test_a_batch_of_other_images_is_not_taken_for_one_of_the_run():
    "What is remembered travels with the batch, so that rows of another set mean nothing."
    trainer = Trainer(run_of()).fit(9, progress=False)
    from dataclasses import replace

    from latentlab.core.batch import Context

    batch = trainer.session.batches.at(0)
    other = replace(batch, x=1 - batch.x, extra={})
    terms_of = lambda one: trainer.model.losses(one, Context(live=trainer.live, generator=torch.Generator().manual_seed(0), step=9))["distance"]
    assert not torch.equal(terms_of(other), terms_of(batch)) and torch.equal(terms_of(replace(batch, extra={})), terms_of(batch))


def test_rows_in_a_file_are_gone_with_their_process(monkeypatch, tmp_path):
    "They have no name in the folder even while they are read, so that no end of the process leaves them there."
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rows = DiskRows(5, 2, 3)
    rows[torch.tensor([4, 1])] = torch.arange(12.0).view(2, 2, 3)
    assert rows.index_select(0, torch.tensor([1, 4])).flatten().tolist() == [*range(6, 12), *range(6)]
    assert not list(tmp_path.iterdir())
