"Pictures that stay in their files: the same run to the bit, before and after a resume, in every family; damage found late has a name."
import numpy as np
import pytest
import torch
from latentlab.contract import all_weights, same_weights
from latentlab.core.registry import families, find_family
from latentlab.core.runtime import memory_budget
from latentlab.data.batches import Batches
from latentlab.data.disk import DiskImages
from latentlab.data.sources import open_images, source_path
from latentlab.train.trainer import Trainer
from PIL import Image

TINY = {"vle": {"side": 16, "levels": 3, "width": 4, "tokens": 3}, "nem": {"layers": 2, "width": 4, "encoder": "untrained"},
        "csvae": {"side": 16, "features": 16, "width": 6, "label_scale": 0.0}, "compvae": {"side": 16, "features": 16, "latents": 4, "likelihood": "gaussian"},
        "ssl": {"shape": "scenes"}, "hvae": {"layers": 1, "latents": (4,), "hidden": 16}}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    "48 pictures in two classes, JPEG and PNG, square or not, and a file that is none."
    root, rng = tmp_path_factory.mktemp("disk") / "photos", np.random.default_rng(0)
    for kind in ("cat", "dog"):
        (root / kind).mkdir(parents=True)
        for k in range(24):
            coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
            coarse.resize((40 + k % 3, 36)).save(root / kind / f"{k:03}.{'jpg' if k % 2 else 'png'}")
    (root / "cat" / "broken.jpg").write_bytes(b"no picture")
    return root


@pytest.fixture
def little(monkeypatch):
    "Says how much memory images may take, in bytes."
    return lambda count: monkeypatch.setenv("LATENTLAB_MEMORY", f"{count / 1e9:.9f}")


def run_of(family, photos):
    run = find_family(family).experiment()
    small = {"train.batch": 8, "train.device": "cpu", "train.check_every": 5, "train.steps": 7, "train.record_every": 1}
    return run.replace(TINY[family] | small | {source_path(run): f"folder:{photos}"})


def terms(trainer):
    fetched = trainer.session.curves.fetch()
    return {name: tuple(values) for name, values in fetched.values.items()}


@pytest.mark.parametrize("family", [one.name for one in families()])
def test_a_run_from_the_disk_is_the_run_from_memory_to_the_bit(family, photos, tmp_path, little):
    "In an epoch and over its end, after a break, and through every way in which a family takes its images."
    run = run_of(family, photos)
    whole = Trainer(run).fit(7, progress=False)
    assert len(whole.session.batches.images) // 8 < 5, "over the end of an epoch before the break"
    assert not isinstance(whole.session.batches.images, DiskImages)
    little(20_000)
    read = Trainer(run, journal=tmp_path).fit(5, progress=False)
    assert isinstance(read.session.batches.images, DiskImages)
    assert "MB, and 0.0 MB may be taken: they stay in their files" in read.session.setup.info["source"]
    read.stop()
    again = Trainer(run, journal=tmp_path).resume().fit(2, progress=False)
    assert again.step_count == 7 and again.recorder.id == read.recorder.id, "where the pixels lie is no part of what a run is"
    assert terms(again) == terms(whole) and same_weights(all_weights(again), all_weights(whole))
    assert [m.figures for m in again.session.measurements] == [m.figures for m in whole.session.measurements]


def test_what_is_asked_of_both_is_the_same(photos, little):
    name = f"folder:{photos}"
    held = {(split, side): open_images(name, split, side=side) for split in ("train", "test") for side in (None, 20)}
    little(1000)
    for (split, side), images in held.items():
        lazy = open_images(name, split, side=side)
        assert isinstance(lazy.images, DiskImages) and lazy.images.shape == images.images.shape and len(lazy) == len(images)
        assert lazy.classes == images.classes and torch.equal(lazy.labels, images.labels) and torch.equal(lazy.indices, images.indices)
        rows = [3, 0, 5]
        assert torch.equal(lazy.subset(rows).float(), images.subset(rows).float())
        assert torch.equal(lazy.resize(12).subset(rows).float(), images.resize(12).subset(rows).float())
        assert torch.equal(Batches(lazy.images, 4, 3).at(50).x, Batches(images.images, 4, 3).at(50).x)
    assert "left out: 1, 'cat/broken.jpg'" in open_images(name, "train").source + open_images(name, "test").source


def test_a_picture_that_is_damaged_later_is_named_and_the_steps_before_it_are_kept(photos, tmp_path, little):
    import shutil

    mine = tmp_path / "photos"
    shutil.copytree(photos, mine)
    little(1000)
    trainer = Trainer(run_of("hvae", mine), folder=tmp_path / "kept")
    batches = trainer.session.batches
    victim = batches.images.files.names[batches.file_rows(3)[0]]
    (mine / victim).write_bytes((mine / victim).read_bytes()[:-400])
    with pytest.raises(ValueError, match=f"`images` must be pictures that can be read: got '{victim}'.*build the run anew"): trainer.fit(6, progress=False)
    assert trainer.step_count == 3 and trainer.checkpoints.path(trainer.run).is_file()


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "a lot", "2 GB"])
def test_what_is_no_number_of_gigabytes(text, monkeypatch):
    monkeypatch.setenv("LATENTLAB_MEMORY", text)
    with pytest.raises(ValueError, match="`LATENTLAB_MEMORY` must be a positive number of GB"): memory_budget()
