"""Image sets: exactness of the bundle, every set and layout of files, and a message for every damage."""

import functools
import gzip
import hashlib
import http.server
import io
import os
import socketserver
import struct
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from latentlab.data import images
from latentlab.data.images import IDX, KNOWN, NAMES, ImageSet, check_set, load, read_idx, read_npz, resize_pixels, serial_split

BUNDLE = Path(images.__file__).parents[1] / "bundled"
DATA = os.environ.get("LATENTLAB_DATA")
whole_data = pytest.mark.skipif(not DATA, reason="needs the whole sets in $LATENTLAB_DATA")
DIGESTS = {
    "train": "73194a0c06a93deab58b95e00e618cc5c80fb5c9a84df26bbc429eeb3507846a",
    "test": "8e8b02fc2db0ff9ed2d481ff30f8bd7cc5c88205cb131d7f4a0c19448f6957c9",
}


@pytest.fixture
def alone(monkeypatch, tmp_path):
    "No environment folder, an empty cache, and no network."
    monkeypatch.delenv("LATENTLAB_DATA", raising=False)
    monkeypatch.setenv("LATENTLAB_CACHE", str(tmp_path / "cache"))

    def offline(name, split): raise ConnectionError("no network in tests")

    monkeypatch.setattr(images, "download", offline)
    return tmp_path


def write_npz(path, **changes):
    "A well-formed msrc file of noise, with some arrays changed or (None) left out."
    draw = np.random.default_rng(0)
    arrays = dict(images=draw.integers(0, 256, (397, 128, 128, 3), dtype=np.uint8), labels=np.arange(397) % 15,
                  classes=np.array([f"c{i}" for i in range(15)]),
                  masks=draw.integers(0, 2, (397, 128, 128), dtype=np.uint8)) | changes
    np.savez(path, **{k: v for k, v in arrays.items() if v is not None})
    return path


# ---- the bundle

@pytest.mark.parametrize("split,each", [("train", 1000), ("test", 200)])
def test_bundle_is_balanced_exact_and_says_what_it_is(alone, split, each):
    found = load("fashion-mnist", split)
    assert found.labels.bincount().tolist() == [each] * 10
    assert hashlib.sha256(found.images.numpy().tobytes() + found.labels.numpy().astype(np.uint8).tobytes()).hexdigest() == DIGESTS[split]
    assert "the bundle" in found.source and f"{10 * each:,} of {KNOWN['fashion-mnist'].counts[split == 'test']:,}" in found.source
    assert (found.classes[9] == "Ankle boot" and "MIT" in found.licence and found.images.dtype == torch.uint8
            and found.labels.dtype == torch.int64)


@whole_data
@pytest.mark.parametrize("split", ["train", "test"])
def test_bundle_equals_the_whole_set_at_its_indices(split):
    part, full = load("fashion-mnist", split, root=BUNDLE), load("fashion-mnist", split, root=DATA)
    assert len(full) == KNOWN["fashion-mnist"].counts[split == "test"]
    assert torch.equal(full.images[part.indices], part.images) and torch.equal(full.labels[part.indices], part.labels)


def test_bundle_has_its_licence_checksums_and_a_reasonable_size():
    notice = (BUNDLE / "FASHION_MNIST_LICENSE.txt").read_text(encoding="utf-8")
    assert "Copyright © 2017 Zalando SE" in notice and "The above copyright notice and this permission notice shall be included" in notice
    for line in (BUNDLE / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split()
        assert hashlib.sha256((BUNDLE / name).read_bytes()).hexdigest() == digest
    assert "Creative Commons Attribution-Share Alike 3.0" in (BUNDLE / "MNIST_LICENSE.txt").read_text(encoding="utf-8")
    assert sum(p.stat().st_size for p in BUNDLE.iterdir()) < 4.75e6


@whole_data
def test_bundled_digits_are_every_tenth_of_the_test_images():
    part, full = load("mnist", "test", root=BUNDLE), load("mnist", "test", root=DATA)
    assert part.indices.tolist() == list(range(0, 10000, 10))
    assert torch.equal(full.images[part.indices], part.images) and torch.equal(full.labels[part.indices], part.labels)


def test_bundle_loads_in_about_a_second():
    load("fashion-mnist", "test", root=BUNDLE)
    start = time.perf_counter()
    load("fashion-mnist", root=BUNDLE)
    assert time.perf_counter() - start < 2  # 0.2 s alone on a core; the rest is room for a busy machine


# ---- the sets

@whole_data
@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("name", NAMES)
def test_every_set_loads_whole(name, split):
    found, known = load(name, split), KNOWN[name]
    assert found.images.shape[1:] == (known.channels, known.side, known.side) and found.images.dtype == torch.uint8
    assert (found.masks is not None) == (known.extra == "masks") and (found.boxes is not None) == (known.extra == "boxes")
    assert 0 <= found.labels.min() and found.labels.max() < len(found.classes)
    pixels = found.images.flatten(1)
    assert (pixels.amin(1) < pixels.amax(1)).all(), "no constant image"
    small = load(name, split, limit=7, size=20)
    assert small.images.shape == (7, known.channels, 20, 20) and 0 <= small.float().min() and small.float().max() <= 1
    assert small.indices.unique().numel() == 7 and torch.equal(small.labels, found.labels[torch.arange(7) * len(found) // 7])


@whole_data
def test_msrc_split_is_disjoint_complete_and_carries_masks():
    train, test = load("msrc-objects"), load("msrc-objects", "test")
    assert sorted(torch.cat([train.indices, test.indices]).tolist()) == list(range(397))
    assert set(test.labels.tolist()) == set(train.labels.tolist()) == set(range(15))
    assert test.masks.flatten(1).sum(1).min() > 0 and set(test.masks.unique().tolist()) == {0, 1}
    assert torch.equal(load("msrc-objects", "test").images, test.images)


def test_serial_split_keeps_the_end_for_test():
    for count in [1, 2, 3, 4, 9]:
        labels = np.zeros(count, int)
        test = serial_split(labels, "test")
        assert test.tolist() == list(range(count - max(1, count // 4), count))
        assert len(serial_split(labels, "train")) == count - len(test)


# ---- where files are looked for

def test_order_of_places(alone, monkeypatch):
    assert "the bundle" in load("fashion-mnist", "test").source
    (alone / "env").mkdir()
    monkeypatch.setenv("LATENTLAB_DATA", str(alone / "env"))
    assert "the bundle" in load("fashion-mnist", "test").source  # absent there: the search goes on
    (alone / "env" / "fashion_mnist_test.npz").write_bytes((BUNDLE / "fashion_mnist_test.npz").read_bytes())
    assert "$LATENTLAB_DATA" in load("fashion-mnist", "test").source
    (alone / "hand").mkdir()
    (alone / "hand" / "fashion-mnist").mkdir()
    (alone / "hand" / "fashion-mnist" / "fashion_mnist_test.npz").write_bytes((BUNDLE / "fashion_mnist_test.npz").read_bytes())
    assert "`root`" in load("fashion-mnist", "test", root=alone / "hand").source
    (alone / "cache").mkdir()
    (alone / "cache" / "fashion_mnist_test.npz").write_bytes((BUNDLE / "fashion_mnist_test.npz").read_bytes())
    monkeypatch.delenv("LATENTLAB_DATA")
    assert "the cache" in load("fashion-mnist", "test", whole=True).source


def test_damage_stops_the_search(alone, monkeypatch):
    monkeypatch.setenv("LATENTLAB_DATA", str(alone))
    (alone / "fashion_mnist_test.npz").write_bytes((BUNDLE / "fashion_mnist_test.npz").read_bytes()[:-1000])
    with pytest.raises(ValueError, match="fashion_mnist_test.npz` must be a whole .npz file.*copy it again, or remove it"):
        load("fashion-mnist", "test")


def test_root_is_the_only_place(alone):
    with pytest.raises(FileNotFoundError, match="Put fashion_mnist_train.npz or fashion-mnist/train-images-idx3-ubyte.gz with its labels "
                                                "into one of: `root`"):
        load("fashion-mnist", root=alone)


@pytest.mark.parametrize("name", NAMES[1:])
def test_offline_says_which_file_to_put_where(alone, name):
    with pytest.raises(FileNotFoundError, match=KNOWN[name].files[1]) as caught: load(name, "test", whole=True)
    assert str(alone / "cache") in str(caught.value) and "$LATENTLAB_DATA" in str(caught.value)
    assert ("the download failed (ConnectionError)" in str(caught.value)) == bool(KNOWN[name].address)


def test_folders_that_are_not_there(alone, monkeypatch):
    with pytest.raises(ValueError, match="`root` must be a folder"): load("mnist", root=alone / "nowhere")
    monkeypatch.setenv("LATENTLAB_DATA", str(alone / "nowhere"))
    with pytest.raises(ValueError, match=r"\$LATENTLAB_DATA must be a folder"): load("fashion-mnist")


# ---- idx files and downloads

@pytest.fixture
def little(monkeypatch):
    "MNIST as a set of three images, so that its idx files are made in the test."
    pixels = np.random.default_rng(1).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    contents = [struct.pack(">4I", 2051, 3, 28, 28) + pixels.tobytes(), struct.pack(">2I", 2049, 3) + bytes([7, 0, 9])]
    packed = [gzip.compress(c, mtime=0) for c in contents]
    digests = tuple((hashlib.md5(p).hexdigest(), hashlib.sha256(c).hexdigest()) for p, c in zip(packed, contents, strict=True))
    monkeypatch.setitem(KNOWN, "mnist", replace(KNOWN["mnist"], counts=(3, 3), digests=digests * 2))
    return pixels, packed, contents


@pytest.mark.parametrize("folder", ["mnist", "MNIST/raw", "."])
@pytest.mark.parametrize("gz", [True, False])
def test_idx_files_in_each_layout(alone, little, folder, gz):
    pixels, packed, contents = little
    (alone / folder).mkdir(parents=True, exist_ok=True)
    for name, content in zip(IDX[2:], packed if gz else contents, strict=True): (alone / folder / (name + ".gz" * gz)).write_bytes(content)
    found = load("mnist", "test", root=alone)
    assert (np.array_equal(found.images[:, 0].numpy(), pixels) and found.labels.tolist() == [7, 0, 9]
            and found.classes == tuple("0123456789"))


def test_idx_files_of_another_set_are_refused(alone, little):
    for name, content in zip(IDX[2:], little[1], strict=True): (alone / (name + ".gz")).write_bytes(content)
    with pytest.raises(ValueError, match="It is damaged"): load("fashion-mnist", "test", root=alone)
    with pytest.raises(ValueError, match="damaged or of another set"): read_idx(alone / (IDX[2] + ".gz"), "0" * 64, little[0].shape)


@whole_data
def test_stored_digests_are_those_of_the_published_content():
    for name in ("mnist", "fashion-mnist"):
        for i, split in enumerate(("train", "test")):
            found = load(name, split, root=DATA)
            content = struct.pack(">4I", 2051, *found.images[:, 0].shape) + found.images.numpy().tobytes()
            assert hashlib.sha256(content).hexdigest() == KNOWN[name].digests[2 * i][1]


@pytest.fixture
def server(tmp_path):
    "A web server on this machine for one folder."
    (tmp_path / "web").mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass

    with socketserver.TCPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(tmp_path / "web"))) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield tmp_path / "web", f"http://127.0.0.1:{running.server_address[1]}/"
        running.shutdown()


def test_download_is_checked_and_cached(monkeypatch, tmp_path, little, server):
    web, address = server
    monkeypatch.delenv("LATENTLAB_DATA", raising=False)
    monkeypatch.setenv("LATENTLAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(KNOWN, "mnist", replace(KNOWN["mnist"], address=address))
    for name, content in zip(IDX[:2], little[1], strict=True): (web / (name + ".gz")).write_bytes(content)
    assert "a download" in load("mnist").source
    for p in list(web.iterdir()): p.unlink()
    assert "the cache" in load("mnist").source
    for name in IDX[2:]: (web / (name + ".gz")).write_bytes(b"not what was published")
    with pytest.raises(ValueError, match="hash"): load("mnist", "test", whole=True)
    assert not (tmp_path / "cache" / "mnist" / (IDX[2] + ".gz")).exists()
    for name in IDX[2:]: (web / (name + ".gz")).unlink()
    with pytest.raises(FileNotFoundError, match="the download failed"): load("mnist", "test", whole=True)


# ---- damage

def test_no_flipped_byte_changes_the_arrays_silently(tmp_path):
    path, source = tmp_path / "f.npz", (BUNDLE / "fashion_mnist_test.npz").read_bytes()
    with zipfile.ZipFile(io.BytesIO(source)) as z: small = {k: z.read(k) for k in z.namelist()}
    good = read_npz(BUNDLE / "fashion_mnist_test.npz")
    assert len(small) == 5
    draw, refused = np.random.default_rng(0), 0
    for at in draw.integers(0, len(source), 60):
        path.write_bytes(source[:at] + bytes([source[at] ^ (1 << int(draw.integers(8)))]) + source[at + 1:])
        try: found = read_npz(path)
        except ValueError as error:
            refused += 1
            assert "f.npz" in str(error)
        else: assert all(np.array_equal(found[k], good[k]) for k in good)
    assert refused > 50


def test_files_that_are_no_npz(alone):
    for content in [b"", b"PK", b"\x93NUMPY", b"hello" * 100, b"\x80\x04."]:
        (alone / "mnist_test.npz").write_bytes(content)
        with pytest.raises(ValueError, match="mnist_test.npz` must be a whole .npz file"): load("mnist", "test", root=alone)


def test_a_plain_npy_and_a_folder_are_refused(tmp_path):
    with open(tmp_path / "x.npz", "wb") as f: np.save(f, np.zeros(3))
    with pytest.raises(ValueError, match="must be a whole .npz file"): read_npz(tmp_path / "x.npz")


def test_pickles_are_never_opened(alone):
    np.savez(alone / "mnist_test.npz", images=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="must be a whole .npz file: .*images.npy is an array of object"): load("mnist", "test", root=alone)


@pytest.mark.parametrize("changes,message", [
    ({"masks": None}, "no array masks"),
    ({"classes": None}, "no array classes"),
    ({"images": np.zeros((397, 64, 64, 3), np.uint8)}, r"images of uint8 \(64, 64, 3\) where uint8 \(128, 128, 3\) belongs"),
    ({"images": np.zeros((397, 128, 128), np.uint8)}, "images of uint8"),
    ({"images": np.zeros((397, 128, 128, 3), np.int16)}, "images of int16"),
    ({"images": np.zeros((0, 128, 128, 3), np.uint8), "labels": np.zeros(0, int)}, "0 images where 397 belong"),
    ({"labels": np.arange(396) % 15}, "labels of int64"),
    ({"labels": np.arange(397)}, "labels up to 396 for 15 classes"),
    ({"labels": np.arange(397) % 15 - 1}, "labels up to 13"),
    ({"labels": np.zeros(397)}, "labels of float64"),
    ({"classes": np.arange(15)}, "should be names"),
    ({"masks": np.full((397, 128, 128), 2, np.uint8)}, "masks that do not fit"),
    ({"masks": np.zeros((397, 64, 64), np.uint8)}, "masks that do not fit"),
    ({"indices": np.zeros(397, int)}, "indices that do not rise"),
    ({"indices": np.arange(397) + 1}, "indices that do not rise, or leave the set"),
    ({"indices": np.arange(3)}, "397 images where 3 belong"),
])
def test_wrong_arrays_are_named(changes, message):
    draw = np.zeros((397, 128, 128, 3), np.uint8)
    arrays = dict(images=draw, labels=np.arange(397) % 15, classes=np.array([f"c{i}" for i in range(15)]),
                  masks=np.zeros((397, 128, 128), np.uint8)) | changes
    import re
    assert re.search(message, check_set({k: v for k, v in arrays.items() if v is not None}, KNOWN["msrc-objects"], "train"))


def test_load_names_the_file_and_the_rule(alone):
    write_npz(alone / "msrc_v2_objects_128.npz", masks=None)
    with pytest.raises(ValueError, match="msrc_v2_objects_128.npz` must hold msrc-objects/train: got no array masks.*copy it "
                                         "again, or remove it"):
        load("msrc-objects", root=alone)


def test_boxes_are_checked():
    arrays = dict(images=np.zeros((300, 64, 64, 3), np.uint8), labels=np.zeros(300, int), classes=np.array(["a"]),
                  boxes=np.tile([1, 2, 3, 4], (300, 1)).astype(np.uint8))
    assert check_set(arrays, KNOWN["tiny-imagenet"], "test") == ""
    assert "boxes" in check_set(arrays | {"boxes": arrays["boxes"][:, ::-1]}, KNOWN["tiny-imagenet"], "test")
    assert "boxes" in check_set(arrays | {"boxes": arrays["boxes"] + 60}, KNOWN["tiny-imagenet"], "test")


# ---- bad arguments

@pytest.mark.parametrize("arguments,message", [
    (("imagenet",), "`name` must be one of fashion-mnist, mnist, omniglot, cifar10, tiny-imagenet, msrc-objects: got 'imagenet'"),
    (("../mnist",), "`name` must be one of"), (("",), "`name` must be one of")])
def test_names_are_looked_up_and_never_become_paths(arguments, message):
    with pytest.raises(ValueError, match=message): load(*arguments)


def test_values_of_a_wrong_type():  # a TypeError where types are checked, as here; a ValueError with its message in the notebook
    for arguments in [dict(split="val"), dict(size=2.5), dict(limit="28")]:
        with pytest.raises((ValueError, TypeError)): load("fashion-mnist", root=BUNDLE, **arguments)


@pytest.mark.parametrize("name", ["size", "limit"])
def test_sizes_and_limits(name):
    for value in [0, -1, True, 10**9]:
        with pytest.raises(ValueError, match=f"`{name}` must be a whole number"):
            load("fashion-mnist", "test", root=BUNDLE, **{name: value})


def some(count=5, side=12, **more):
    return ImageSet(name="n", split="train", images=torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8),
                    labels=torch.arange(count) % 2,
                    classes=("a", "b"), indices=torch.arange(count), **more)


def test_subset_cuts_every_field():
    full = some(masks=torch.randint(0, 2, (5, 12, 12), dtype=torch.uint8),
                boxes=torch.tensor([[1, 2, 3, 4]]).repeat(5, 1) + torch.arange(5)[:, None])
    part = full.subset(np.array([4, 0, 4]))
    assert (part.indices.tolist() == [4, 0, 4] and torch.equal(part.masks, full.masks[[4, 0, 4]])
            and torch.equal(part.boxes, full.boxes[[4, 0, 4]]))
    assert len(full) == 5 and (part.name, part.classes) == (full.name, full.classes)


def test_subset_refuses():
    for rows in [[5], [-1], [], [0.0], [[1]], torch.tensor([True, False]), "ab"]:
        with pytest.raises((ValueError, TypeError)): some().subset(rows)


def test_resize_keeps_means_and_constants():
    for side in [4, 12, 13, 40]:
        images = resize_pixels(torch.nn.functional.avg_pool2d(some(side=24).images.float(), 5, 1).to(torch.uint8), side)
        assert images.shape == (5, 3, side, side) and images.dtype == torch.uint8
        assert (resize_pixels(torch.full((2, 1, 9, 9), 200, dtype=torch.uint8), side) == 200).all()


def test_resize_refuses_oblong_images():
    oblong = replace(some(), images=torch.zeros(5, 1, 8, 9, dtype=torch.uint8))
    with pytest.raises(ValueError, match="must be square to be resized: got 8 x 9"): oblong.resize(8)


def test_import_needs_no_download_library():
    code = "import sys; from latentlab.data.images import load; load('fashion-mnist', 'test'); "
    code += "bad = {'pooch', 'matplotlib', 'pandas', 'requests'} & set(sys.modules); assert not bad, bad"
    subprocess.run([sys.executable, "-c", code], check=True, env={k: v for k, v in os.environ.items() if k != "LATENTLAB_DATA"})
