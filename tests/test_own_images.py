"A researcher's own images: folders, arrays, lists, data sets; every face of bad input has a name."
import os
import types
import zipfile
from concurrent.futures import Future

import numpy as np
import pytest
import torch
from PIL import Image

import latentlab as ll
from latentlab.contract import all_weights, same_weights
from latentlab.core.registry import families, find_family
from latentlab.data.folder import is_held_out, list_folder
from latentlab.data.images import ImageSet
from latentlab.data.sources import HANDED, DataSettings, hand_in, is_grey, open_images, source_path, with_images
from latentlab.facade import make_trainer
from latentlab.families.nem.experiment import NEMRun
from latentlab.journal.journal import Journal
from latentlab.sweeps.plan import Plan
from latentlab.sweeps.sweep import Sweep
from latentlab.train.trainer import Trainer


def photograph(k: int, width: int = 48, height: int = 36) -> Image.Image:
    "A coloured square on noise, another one for each number."
    rng = np.random.default_rng(k)
    pixels = rng.integers(0, 120, (height, width, 3), dtype=np.uint8)
    top, left = rng.integers(0, height - 12), rng.integers(0, width - 12)
    pixels[top:top + 12, left:left + 12] = rng.integers(120, 256, 3)
    return Image.fromarray(pixels)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    "120 photographs of two classes, half of them JPEG."
    root = tmp_path_factory.mktemp("mine") / "photos"
    for kind in ("cat", "dog"):
        (root / kind).mkdir(parents=True)
        for k in range(60): photograph(k + (kind == "dog") * 100).save(root / kind / f"{k:03}.{'jpg' if k % 2 else 'png'}")
    return root


def test_a_folder_trains_in_every_family_that_takes_images(photos, tmp_path):
    name = f"folder:{photos}"
    runs = [NEMRun().replace({"data": name, "images": 64, "train.batch": 8})]
    for family, changes in (("hvae", {"data.name": name, "data.images": 500, "train.batch": 16}),
                            ("vle", {"data.name": name, "train.batch": 4, "side": 16}),
                            ("ssl", {"data.name": name, "shape": "scenes", "train.batch": 16}),
                            ("csvae", {"data.name": name, "side": 16, "train.batch": 8, "label_scale": 0.0}),
                            ("compvae", {"data.name": name, "side": 16, "train.batch": 8, "likelihood": "gaussian"})):
        runs.append(ll.core.registry.find_family(family).experiment().replace(changes))
    for run in runs:
        trainer = Trainer(run, journal=tmp_path / "runs").fit(2)
        assert trainer.session.step == 2 and list_folder(photos).digest in trainer.session.setup.given.values()


TINY = {"vle": {"side": 16, "levels": 3, "width": 4, "tokens": 3}, "nem": {"layers": 2, "width": 4, "encoder": "untrained"},
        "csvae": {"side": 16, "features": 16, "width": 6, "label_scale": 0.0}, "compvae": {"side": 16, "features": 16}, "ssl": {},
        "hvae": {"layers": 1, "latents": (4,), "hidden": 16}}


class InTurn:
    "Calls are carried out where they are asked for."

    def __init__(self, workers): pass

    def submit(self, call, *words):
        future = Future()
        future.set_result(call(*words))
        return future

    def interrupt(self): pass

    def close(self): pass


@pytest.mark.parametrize("family", [one.name for one in families()])
def test_images_of_ones_own_are_trained_on_recorded_resumed_and_swept_in_every_family(family, tmp_path):
    "One field of the run holds them, so that no family has to know of it."
    stream, runs = torch.Generator().manual_seed(0), tmp_path / "runs"
    mine, others = (torch.randint(0, 256, (60, 1, 28, 28), dtype=torch.uint8, generator=stream) for _ in range(2))
    how = {"batch": 8, "device": "cpu", "check_every": 100, "images": mine, **TINY.get(family, {})}
    trainer = ll.train(family, steps=2, journal=runs, progress=False, **how)
    path, name = source_path(trainer.run), hand_in(mine)
    (row,) = Journal(runs).rows()
    facts = Journal(runs).run(row["id"]).facts
    assert trainer.run.get(path) == name and facts["given"][path] == name.removeprefix("own:") and not trainer.custom
    assert trainer.session.setup.info["data"] == "own images" and len(trainer.session.batches.images) == 48
    assert make_trainer(family, how | {"steps": 2}, runs).resume().recorder.id == row["id"], "the same images are the same run"
    straight = all_weights(make_trainer(family, how | {"steps": 3}).fit(progress=False))
    HANDED.clear()  # another process, which was handed nothing
    assert Journal(runs).run(row["id"]).settings(type(trainer.run)).get(path) == name, "settings can be read where the images are not"
    with pytest.raises(ValueError, match="`images` must be handed over again: got a run of images of one's own, " + name):
        ll.restore(runs / row["id"])
    with pytest.raises(ValueError, match="`images` must be those that the run had: got .*, and the run has " + name):
        ll.restore(runs / row["id"], images=others)
    again = ll.restore(runs / row["id"], images=ImageSet(name="mine", split="all", images=mine))
    assert same_weights(all_weights(again), all_weights(trainer)) and same_weights(all_weights(again.fit(1, progress=False)), straight)
    base = find_family(family).experiment().replace({name: value for name, value in how.items() if name != "images"} | {"train.steps": 1})
    sweep = ll.Sweep(Plan(base=base), tmp_path / "sweep", images=mine, workers=1, backend=InTurn).start().wait(progress=False)
    assert [outcome.state for outcome in sweep.outcomes.values()] == ["done"], sweep.outcomes
    assert Journal(tmp_path / "sweep").rows()[0]["settings"][path] == name


def test_more_latents_than_images_are_refused_before_any_time_is_spent():
    mine = torch.randint(0, 256, (60, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    run = find_family("compvae").experiment().replace({"side": 16, "train.batch": 8, "latents": 12, "device": "cpu"})
    with pytest.raises(ValueError, match="`latents` must be fewer than the images that are held out: got 12 for 12"):
        with_images(run, mine).build()


def test_a_sweep_over_two_sets_of_ones_own_hands_both_over(tmp_path):
    stream = torch.Generator().manual_seed(0)
    one, two = (torch.randint(0, 256, (60, 1, 28, 28), dtype=torch.uint8, generator=stream) for _ in range(2))
    base = NEMRun().replace({"train.batch": 8, "train.steps": 1, "train.device": "cpu", "encoder": "untrained", "layers": 2})
    plan = Plan(base=with_images(base, one), changes=[{}, {"data": hand_in(two)}])
    sweep = Sweep(plan, tmp_path, workers=1, backend=InTurn)
    assert [images.fingerprint() for images in sweep.images] == [run.data.removeprefix("own:") for run in plan.runs()]
    HANDED.clear()
    with pytest.raises(ValueError, match="`images` must be handed over again"): Sweep(plan, tmp_path, backend=InTurn)
    sweep.start().wait(progress=False)  # what it has it hands over, to a worker that was handed nothing
    assert [outcome.state for outcome in sweep.outcomes.values()] == ["done", "done"], sweep.outcomes


def test_a_panel_on_images_of_ones_own_offers_them_beside_the_known_names():
    mine = torch.randint(0, 256, (60, 3, 28, 28), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    panel = ll.lab("hvae", images=mine, layers=1, latents=(4,), hidden=16, batch=8, device="cpu", threads=1)
    try:
        panel.trainer.pause()
        name = panel.trainer.run.data.name
        panel.trainer.rebuild({"data.name": "moons"}).rebuild({"data.name": name})  # away, and back
        assert panel.trainer.setup.preview.shape == (8, 3, 28, 28) and "own" in panel.trainer.run.rulers()["held_out/elbo"]
    finally: panel.close()


def test_a_changed_folder_is_another_run(photos, tmp_path):
    run = NEMRun().replace({"data": f"folder:{photos}", "images": 64, "train.batch": 8, "train.steps": 2})
    trainer = Trainer(run, journal=tmp_path / "runs")
    trainer.fit(2)
    assert Trainer(run, journal=tmp_path / "runs").resume().session.step == 2
    photograph(7).save(photos / "cat" / "later.png")
    try:
        with pytest.raises(ValueError, match="no run of runs has these settings"): Trainer(run, journal=tmp_path / "runs").resume()
        with pytest.raises(ValueError, match="must be a run of the data that this trainer was given"):
            Trainer(run, journal=tmp_path / "runs").load(trainer.recorder.id)
    finally: (photos / "cat" / "later.png").unlink()


def test_a_sweep_over_a_folder_finds_what_it_has_trained(photos, tmp_path):
    run = NEMRun().replace({"data": f"folder:{photos}", "images": 64, "train.batch": 8, "train.steps": 2, "train.record_every": 2})
    Trainer(run, journal=tmp_path / "runs").fit(2)
    sweep = Sweep(Plan(base=run), Journal(tmp_path / "runs"))
    sweep.dispatcher.look_up()
    assert sweep.progress().found == 1


def test_settings_of_a_folder_that_is_not_here_can_be_read():
    run = NEMRun().replace(data="folder:/not/here")
    assert run.data == "folder:/not/here"
    with pytest.raises(ValueError, match="`source` must be a folder that is there: got '/not/here'"): Trainer(run)


@pytest.mark.parametrize("value", ["folder:", "folder:   ", "photos", 7, None, "Folder:x"])
def test_a_name_that_is_none(value, unchecked):
    with pytest.raises(ValueError, match="`data` must be|`name` must be folder:PATH"): NEMRun().replace(data=value)
    with pytest.raises(ValueError, match="`name` must be"): DataSettings().replace(name=value)


MODES = {"1": 1, "L": 1, "LA": 1, "P": 3, "RGB": 3, "RGBA": 3, "CMYK": 3, "YCbCr": 3, "HSV": 3, "I;16": 1}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_of_pillow(mode, tmp_path):
    for k in range(12):
        if mode == "I;16": picture = Image.fromarray(np.linspace(0, 65_535, 64).reshape(8, 8).astype(np.uint16))
        else: picture = photograph(k, 20, 20).convert("L" if mode in ("1", "LA") else "RGB").convert(mode)
        picture.save(tmp_path / f"{k}.{'tif' if mode in ('CMYK', 'YCbCr') else 'png' if mode != 'HSV' else 'png'}") if mode != "HSV" else \
            np.save(tmp_path / "none.npy", 0)
    if mode == "HSV": found = ll.images([photograph(k, 20, 20).convert("HSV") for k in range(12)], size=16, quiet=True)
    else: found = ll.images(tmp_path, size=16, quiet=True)
    assert found.images.shape == (12, MODES[mode], 16, 16) and found.images.float().std() > 10
    if mode in ("RGB", "RGBA", "CMYK", "HSV", "YCbCr"):
        plain = ll.images([photograph(int(k), 20, 20) for k in (sorted(map(str, range(12))) if mode != "HSV" else range(12))], size=16, quiet=True)
        assert (found.images.float() - plain.images.float()).abs().mean() < 6


def test_broken_files_are_named_and_strict_refuses(photos, tmp_path, capsys):
    root = tmp_path / "some"
    root.mkdir()
    for k in range(12): photograph(k).save(root / f"{k:02}.png")
    (root / "broken.png").write_bytes((root / "00.png").read_bytes()[:200])
    (root / "empty.jpg").write_bytes(b"")
    (root / "words.txt").write_text("x")
    found = ll.images(root)
    words = capsys.readouterr().out
    assert len(found) == 12 and "left out: 2 ('broken.png'" in words and "other files: 1" in words and "no labels" in words
    assert "12 pictures, colour, 64 x 64 px" in words and "12 are not square: the middle square is kept" in words
    with pytest.raises(ValueError, match="`source` must hold pictures that can be read: got 'broken.png'"): ll.images(root, strict=True)


def test_a_bomb_is_refused_by_its_head(tmp_path, monkeypatch):
    for k in range(3): photograph(k).save(tmp_path / f"{k}.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match="more than Pillow's limit of 1,000 pixels"): ll.images(tmp_path)


def test_a_picture_of_ten_thousand_by_ten_thousand_is_refused_by_pillows_own_limit(tmp_path):
    for k in range(3): photograph(k).save(tmp_path / f"{k}.png")
    Image.new("1", (10_000, 10_000)).save(tmp_path / "huge.png")
    with pytest.raises(ValueError, match="got 'huge.png': it has more than Pillow's limit of 89,478,485 pixels"): ll.images(tmp_path, strict=True)


def test_no_file_that_can_be_read(tmp_path):
    for k in range(3): (tmp_path / f"{k}.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match="must hold at least two pictures: got 0|can be read"): ll.images(tmp_path)


def test_mixed_sizes_and_modes_become_one(tmp_path, capsys):
    for k, mode in enumerate(("RGB", "L", "1", "P", "CMYK", "RGBA", "LA")):
        drawn = Image.fromarray(np.random.default_rng(k).integers(0, 256, (30 + k, 50 - k, 3), dtype=np.uint8))
        (drawn.convert("L") if mode in ("1", "LA") else drawn).convert(mode).save(tmp_path / f"{k}.{'tif' if mode == 'CMYK' else 'png'}")
    Image.fromarray(np.random.default_rng(7).integers(0, 65536, (20, 40), dtype=np.uint16)).save(tmp_path / "7.png")
    found = ll.images(tmp_path, size=24)
    assert tuple(found.images.shape) == (8, 3, 24, 24) and "8 pictures, colour" in capsys.readouterr().out


def test_folders_that_are_not_understood(tmp_path):
    with pytest.raises(ValueError, match="got '.*empty'. Known names|must hold at least two pictures: got 0"):
        (tmp_path / "empty").mkdir()
        ll.images(tmp_path / "empty")
    (tmp_path / "one").mkdir()
    photograph(0).save(tmp_path / "one" / "a.png")
    with pytest.raises(ValueError, match="at least two pictures: got 1"): ll.images(tmp_path / "one")
    mixed = tmp_path / "mixed"
    (mixed / "cat").mkdir(parents=True)
    for k in range(4): photograph(k).save(mixed / "cat" / f"{k}.png")
    photograph(9).save(mixed / "loose.png")
    with pytest.raises(ValueError, match="got 1 pictures beside 1 folders"): ll.images(mixed)
    few = tmp_path / "few"
    few.mkdir()
    for k in range(12): photograph(k).save(few / f"{k}.png")
    with pytest.raises(ValueError, match="at least 10 pictures to train with and 10 held out"): open_images(f"folder:{few}", "test")


def test_links_out_of_the_folder_are_not_followed(tmp_path, capsys):
    secret, root = tmp_path / "secret", tmp_path / "mine"
    for folder in (secret, root): folder.mkdir()
    for k in range(3): photograph(k).save(root / f"{k}.png")
    photograph(5).save(secret / "s.png")
    (root / "link.png").symlink_to(secret / "s.png")
    (root / "loop").symlink_to(root, target_is_directory=True)
    (root / "dangling.png").symlink_to(root / "nowhere.png")
    (root / "inside.png").symlink_to(root / "0.png")
    found = ll.images(root)
    assert len(found) == 4 and "not followed: 2 ('dangling.png': a link out of the folder)" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["line\nbreak.png", "Ünïcödé 中文.png", "quote\"'.png", "-rf.png", "%s {x}.png", b"\xff\xfe.png"])
def test_odd_names(name, tmp_path, capsys):
    for k in range(3): photograph(k).save(tmp_path / f"{k}.png")
    data = (tmp_path / "0.png").read_bytes()
    with open(os.path.join(os.fsencode(tmp_path), os.fsencode(name)), "wb") as file: file.write(data)
    assert len(ll.images(tmp_path)) == 4 and len(list_folder(tmp_path).digest) == 16
    with open(os.path.join(os.fsencode(tmp_path), os.fsencode(name)), "wb") as file: file.write(data[:100])
    assert len(ll.images(tmp_path)) == 3
    capsys.readouterr().out.encode()  # can be written


def test_a_folder_of_odd_class_names(tmp_path):
    for kind in (b"caf\xe9", "中文".encode(), b"a b"):
        os.mkdir(os.path.join(os.fsencode(tmp_path), kind))
        for k in range(3): photograph(k).save(os.path.join(os.fsencode(tmp_path), kind, b"%d.png" % k).decode("utf-8", "surrogateescape"))
    found = ll.images(tmp_path, quiet=True)
    assert len(found.classes) == 3 and "中文" in found.classes and " ".join(found.classes).encode()


def test_a_split_of_ones_own_and_masks(tmp_path):
    for part, names in (("train", range(12)), ("val", range(20, 26))):
        for k in names:
            (tmp_path / part / "thing").mkdir(parents=True, exist_ok=True)
            (tmp_path / "masks" / part / "thing").mkdir(parents=True, exist_ok=True)
            photograph(k, 40, 40).save(tmp_path / part / "thing" / f"{k}.jpg")
            mask = np.zeros((40, 40), np.uint8)
            mask[:20] = 255
            Image.fromarray(mask).save(tmp_path / "masks" / part / "thing" / f"{k}.png")
    train, test = (ll.images(tmp_path, split, size=20, quiet=True) for split in ("train", "test"))
    assert (len(train), len(test)) == (12, 6) and train.classes == ("thing",)
    assert torch.equal(test.masks[0], torch.cat([torch.ones(10, 20), torch.zeros(10, 20)]).to(torch.uint8))


def test_the_held_out_part_moves_with_no_new_file():
    names = [f"{k}.png" for k in range(4000)]
    share = sum(map(is_held_out, names)) / len(names)
    assert abs(share - 0.2) < 0.03 and is_held_out("3.png") == is_held_out("3.png")


def test_a_grey_folder_stays_grey(tmp_path):
    for k in range(90): photograph(k).convert("L").save(tmp_path / f"{k}.png")
    assert is_grey(f"folder:{tmp_path}") and open_images(f"folder:{tmp_path}", "train").images.shape[1] == 1
    setup = NEMRun().replace({"data": f"folder:{tmp_path}", "images": 64, "train.batch": 8}).build()
    assert setup.preview.shape[1:] == (1, 28, 28) and "simclr:fashion-mnist" in setup.info["encoder"]


def test_unreadable(tmp_path, monkeypatch):
    for k in range(3): photograph(k).save(tmp_path / f"{k}.png")
    opened = Image.open
    def refuse(path, *rest):
        if str(path).endswith("1.png"): raise PermissionError(13, "Permission denied")
        return opened(path, *rest)
    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(ValueError, match="got '1.png': it may not be read"): ll.images(tmp_path, strict=True)
    assert len(ll.images(tmp_path, quiet=True)) == 2


BYTES = np.random.default_rng(0).integers(0, 256, (16, 3, 20, 20), dtype=np.uint8)
READINGS = {
    "two layouts": (BYTES[:, :, :, :3], {}, "which is 3 channels of 20 x 3 px, or 3 channels of 3 x 20 px"),
    "one image": (BYTES[0].transpose(1, 2, 0), {}, "one image with channels, or 20 grey ones"),
    "normalised": (BYTES / 127.5 - 1, {}, r"Give levels=\(-1, 1\), or undo the normalisation"),
    "counted to 255": (BYTES.astype(np.float32), {}, r"Give levels=\(0, 255\), \(0, 65535\)"),
    "twice divided": (BYTES / 255 / 255, {}, "as if divided by 255 twice"),
    "bits": (BYTES // 200, {}, "which is black and white, or nearly black"),
    "not finite": (np.full((4, 3, 8, 8), np.nan), {}, "must be finite"),
    "beyond its levels": (BYTES.astype(float), {"levels": (0, 100)}, "`levels` must hold all values"),
    "levels in disorder": (BYTES, {"levels": (1, 0)}, "`levels` must be"),
    "a layout of its own": (BYTES, {"layout": "CHWN"}, "`layout` must be NCHW or NHWC"),
    "other labels": (BYTES, {"labels": [1, 2]}, "`labels` must be one for each of the 16 images: got 2"),
    "labels of two kinds": (BYTES, {"labels": [1, "a"] * 8}, "`labels` must be whole numbers or names"),
    "no array": (object(), {}, "must be an array of numbers"),
    "an empty array": (BYTES[:0], {}, "must be"),
    "a split": (BYTES, {"split": "test"}, "`split` must be left out"),
    "strict": (BYTES, {"strict": True}, "`strict` must be left out for such a source"),
    "no name": ("fashion-mnits", {}, "Did you mean fashion-mnist?"),
    "no shape": (BYTES[:, :, :10], {"shape": "zoom"}, "`shape` must be one of crop, pad, stretch"),
    "no size": (BYTES, {"size": 2}, "`size` must be"),
    "an empty list": ([], {}, "must hold a picture that can be read: got 0, there is none"),
    "a list of texts": (["a", "b"], {}, "must be"),
    "an empty data set": (types.SimpleNamespace(__len__=0), {}, "must be"),
}


@pytest.mark.parametrize("face", READINGS)
def test_two_readings_are_refused(face, unchecked):
    source, how, message = READINGS[face]
    with pytest.raises(ValueError, match=message): ll.images(source, **how)


def test_what_is_said_is_done():
    whole = ll.images(BYTES, quiet=True)
    for source, how in ((BYTES.transpose(0, 2, 3, 1), {}), (torch.from_numpy(BYTES), {}), (BYTES / 255, {}), (BYTES / 127.5 - 1, {"levels": (-1, 1)}),
                        (BYTES.astype(np.float32), {"levels": (0, 255)}), (BYTES.astype(np.uint16) * 257, {}), (BYTES[:, :, :, ::-1][..., ::-1], {}),
                        (list(BYTES), {"size": 20}), ([Image.fromarray(one.transpose(1, 2, 0)) for one in BYTES], {"size": 20})):
        assert torch.equal(ll.images(source, quiet=True, **how).images, whole.images)


def test_a_file_of_arrays_and_one_that_is_none(tmp_path):
    np.savez(tmp_path / "a.npz", photos=BYTES, labels=["x"] * 16)
    assert ll.images(tmp_path / "a.npz", quiet=True).classes == ("x",)
    with zipfile.ZipFile(tmp_path / "b.npz", "w") as file: file.writestr("x", "y")
    with pytest.raises(ValueError, match="whole .npz file"): ll.images(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", a=BYTES, b=BYTES)
    with pytest.raises(ValueError, match="must hold an array called images: got a, b"): ll.images(tmp_path / "c.npz")


def test_labels_that_come_with_a_folder_are_one_for_each_file_in_the_order_of_their_names(tmp_path):
    for name, value in (("b.png", 200), ("a.png", 10), ("c.png", 90)): Image.new("L", (8, 8), value).save(tmp_path / name)
    found = ll.images(tmp_path, labels=["dark", "bright", "middle"], split="all", quiet=True)
    told = {found.classes[label]: int(image.float().mean()) for image, label in zip(found.images, found.labels.tolist(), strict=True)}
    assert told == {"dark": 10, "bright": 200, "middle": 90}
    for wrong in (["dark"], ["dark"] * 4, []):
        with pytest.raises(ValueError, match=f"`labels` must be one for each of the 3 images: got {len(wrong)}"): ll.images(tmp_path, labels=wrong)
