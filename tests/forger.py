"""Files that somebody has forged, made as they are asked for, and what became of those who read them: each is read in a process
of its own, whose memory, time and answer are reported.

python tests/forger.py FOLDER SEED COUNT [DOOR ...]    writes one line of JSON for each file
"""
import copy
import gzip
import hashlib
import io
import json
import lzma
import os
import pickle
import random
import resource
import struct
import sys
import traceback
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from latentlab.core.settings import from_json
from latentlab.data.images import IDX, KNOWN, load
from latentlab.families.vle.trace import TokenTrace
from latentlab.journal.files import read_json, read_lines
from latentlab.journal.runs import Run
from latentlab.nn.encoders import SmallEncoder, read_encoder, save_encoder, weights_digest
from latentlab.train.checkpoint import MAGIC, save_checkpoint
from latentlab.train.example import MeanRun
from latentlab.train.trainer import Trainer

LARGE = 2**31  # Bytes that a bomb unpacks to
ZEROS = zlib.compressobj(9, zlib.DEFLATED, -15)
BLOCK = ZEROS.compress(bytes(2**20)) + ZEROS.flush(zlib.Z_FULL_FLUSH)  # a mebibyte of zeros, to be repeated
END = b"\3\0"  # Of a deflated stream


def npy(shape: Any, data: bytes = b"", descr: Any = "|u1", *, version: int = 1, extra: str = "") -> bytes:
    "An array's part with a header of its own."
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}}}{extra}".encode()
    return b"\x93NUMPY" + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text + data


def deflated(data: bytes, zeros: int = 0) -> bytes:
    "A stream that unpacks to the data and so many mebibytes of zeros; it takes no time to make."
    pack = zlib.compressobj(9, zlib.DEFLATED, -15)
    return pack.compress(data) + pack.flush(zlib.Z_FULL_FLUSH) + BLOCK * zeros + END


def zipped(parts: list[tuple[bytes, int, bytes, int, int]], *, tail: bytes = b"", count: int | None = None, size: int | None = None) -> bytes:
    "An archive by hand: name, how it is packed, packed bytes, unpacked size that is claimed, flags; the directory may lie."
    body, directory, at = [], [], 0
    for name, how, data, claimed, flags in parts:
        head = struct.pack("<5H3I2H", 20, flags, how, 0, 0, zlib.crc32(b""), len(data), claimed & 0xFFFFFFFF, len(name), 0)
        directory.append(b"PK\1\2\24\0" + head + struct.pack("<3H2I", 0, 0, 0, 0, at) + name)
        body.append(b"PK\3\4" + head + name + data)
        at += len(body[-1])
    count, listed = len(parts) if count is None else count, b"".join(directory)
    return b"".join(body) + listed + b"PK\5\6" + struct.pack("<4H2IH", 0, 0, count, count, size or len(listed), at, len(tail)) + tail


def arrays(**values: Any) -> bytes:
    "A true archive of arrays."
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **values)
    return buffer.getvalue()


def odd_archives(name: str, good: dict[str, np.ndarray]) -> dict[str, Callable[[random.Random], bytes]]:
    "Archives with a part of that name which are none; the good arrays stand beside the forged one."
    part, inner = name + ".npy", f"{name}.npy".encode()
    stored = lambda data, claimed=None, how=0, flags=0: zipped([(inner, how, data, len(data) if claimed is None else claimed, flags)])
    headed = lambda *words, **more: stored(npy(*words, **more))
    most = npy((LARGE - 128,)).ljust(128)

    def packed(draw: random.Random, how: int) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", how) as file: file.writestr(part, bytes(2**26))
        return buffer.getvalue()

    return {
        "bomb that says so": lambda d: stored(deflated(most, LARGE >> 20), LARGE, 8),
        "bomb that says little": lambda d: stored(deflated(npy((872,)).ljust(128), 500), 1000, 8),
        "bombs in two hundred parts": lambda d: zipped([(b"%d.npy" % i, 8, deflated(most, 20), LARGE, 0) for i in range(200)]),
        "hollow": lambda d: stored(deflated(npy((10**6,))), 10**6 + 59, 8),
        "bzip2 bomb": lambda d: packed(d, zipfile.ZIP_BZIP2), "lzma bomb": lambda d: packed(d, zipfile.ZIP_LZMA),
        "wide lzma": lambda d: stored(struct.pack("<2HBI", 0x0509, 5, 93, 2**32 - 1) + lzma.compress(bytes(10**6))[13:], 10**6, 14),
        "many parts": lambda d: zipped([(b"%d" % i, 0, b"", 0, 0) for i in range(60_000)]),
        "parts with long names": lambda d: zipped([(b"%060000d" % i, 0, b"", 0, 0) for i in range(30)]),
        "two parts of one name": lambda d: zipped([(inner, 0, npy((1,), b"1"), 60, 0)] * 2),
        "encrypted": lambda d: stored(npy((1,), b"1"), flags=1), "unknown packing": lambda d: stored(npy((1,), b"1"), how=99),
        "a directory that is not there": lambda d: zipped([(inner, 0, b"", 0, 0)], count=60_000, size=2**31),
        "a long comment": lambda d: zipped([(inner, 0, b"", 0, 0)], tail=d.randbytes(65_000)),
        "a long header": lambda d: stored(npy((1,), b"1", version=2, extra=" " * 2**24)),
        "a header that says it is long": lambda d: stored(b"\x93NUMPY\2\0\xff\xff\xff\xff{"),
        "an exabyte": lambda d: headed((10**18,), b"1"), "more than there is": lambda d: headed((2**31,), b"1"),
        "overflow": lambda d: headed((2**32, 2**32), b""), "negative": lambda d: headed((-1,), b"1"),
        "many axes": lambda d: headed((1,) * 300, b"1"), "a number for a shape": lambda d: headed("5", b"1"),
        "truth values for a shape": lambda d: headed("(True,)", b"1"), "a call": lambda d: headed("__import__('os').abort()", b""),
        "brackets": lambda d: headed("(" * 6000, b""), "objects": lambda d: headed((1,), pickle.dumps(print), "|O"),
        "a structure": lambda d: headed((1,), bytes(8), [("a", "<f8")]), "a long text": lambda d: headed((1,), b"", "<U1000000000"),
        "complex": lambda d: headed((1,), bytes(16), "<c16"), "dates": lambda d: headed((1,), bytes(8), "<M8[s]"),
        "text": lambda d: stored(b"no array"), "nothing": lambda d: b"", "random": lambda d: d.randbytes(d.randrange(1, 5000)),
        "cut": lambda d: (data := arrays(**good))[: d.randrange(1, len(data))],
        "one bit": lambda d: flip(arrays(**good), d), "a pickle": lambda d: pickle.dumps(good), "gzip": lambda d: gzip.compress(bytes(10**6)),
    }


def flip(data: bytes, draw: random.Random) -> bytes:
    "One byte of the packed numbers changed."
    at = draw.randrange(60, min(len(data) // 2, 2000))
    return data[:at] + bytes([data[at] ^ 255]) + data[at + 1:]


def odd_places(path: Path, draw: random.Random) -> dict[str, Callable[[], Any]]:
    "What may stand in the place of a file."
    return {"a pipe": lambda: os.mkfifo(path), "a loop of links": lambda: path.symlink_to(path.name), "a folder": lambda: path.mkdir(),
            "a terabyte": lambda: (path.write_bytes(b""), os.truncate(path, 2**40)), "a device": lambda: path.symlink_to("/dev/zero"),
            "a link to nothing": lambda: path.symlink_to("none")}


# Doors: each forges one file, and gives what reads it ------------------------------------------------------------------------


def image_set(draw: random.Random, folder: Path, kind: str | None = None) -> tuple[str, Callable[[], Any], int]:
    "An .npz of a known set, with masks or boxes, and of labels that are none."
    name, split = draw.choice([("fashion-mnist", "test"), ("msrc-objects", "train"), ("tiny-imagenet", "test")])
    known, count = KNOWN[name], 4
    path, side = folder / known.files[split == "test"], (known.side, known.side)
    good = {"images": np.random.default_rng(0).integers(0, 255, (count, *side, *[3] * (known.channels == 3)), dtype=np.uint8),
            "labels": np.zeros(count, np.int64), "classes": np.array(["a", "b"]), "indices": np.arange(count)}
    good |= {"masks": {"masks": np.ones((count, *side), np.uint8)}, "boxes": {"boxes": np.tile([0, 0, 9, 9], (count, 1))}, "": {}}[known.extra]
    wrong = {"labels below 0": {"labels": np.full(count, -1)}, "labels above": {"labels": np.full(count, 2**62)}, "float images": {
        "images": good["images"].astype(np.float32)}, "images of another side": {"images": good["images"][:, 1:]}, "classes of bytes": {
        "classes": np.zeros(2, np.uint8)}, "indices twice": {"indices": np.zeros(count, int)}, "no images": {key: value[:0] for key, value in
        good.items() if key != "classes"}, "indices of floats": {"indices": np.full(count, np.nan)}, "one label": {"labels": np.zeros(1, int)}}
    if known.extra == "masks": wrong |= {"masks of 255": {"masks": np.full((count, *side), 255, np.uint8)}, "one mask": {"masks": np.ones(side, np.uint8)},
                                         "masks of floats": {"masks": np.full((count, *side), np.nan)}}
    if known.extra == "boxes": wrong |= {"boxes outside": {"boxes": np.full((count, 4), 10**6)}, "no box": {"boxes": np.zeros((0, 4), int)}}
    made = {k: (lambda v=v: arrays(**{**good, **v})) for k, v in wrong.items()}
    made |= {k: (lambda make=make: make(draw)) for k, make in odd_archives(draw.choice(list(good)), good).items()}
    kind = kind or draw.choice(list(made))
    path.write_bytes(made[kind]())
    return f"{name}: {kind}", lambda: load(name, split, root=folder), 0


def idx(draw: random.Random, folder: Path) -> tuple[str, Callable[[], Any], int]:
    "An idx file, plain or gzipped."
    gz, size = draw.random() < 0.7, 10_000 * 28**2 + 16
    paths = [folder / (name + ".gz" * gz) for name in IDX[2:]]
    head, pack = struct.pack(">4I", 2051, 10_000, 28, 28), lambda data: gzip.compress(data, 1)
    raw = {"more axes": b"\0\0\x08\xff" + head, "an exabyte": struct.pack(">4I", 2051, 2**32 - 1, 2**32 - 1, 2**32 - 1), "short": head,
           "zeros": head + bytes(size - 16), "random": draw.randbytes(5000), "nothing": b""}
    if gz: raw = {k: pack(v) for k, v in raw.items()} | {
        "bomb": b"\x1f\x8b\x08" + bytes(6) + b"\xff" + BLOCK * 3000 + END, "no end": b"\x1f\x8b\x08" + bytes(6) + b"\xff" + BLOCK * 5,
        "cut": pack(head + bytes(size - 16))[:-9], "padding": pack(head + bytes(size - 16)) + bytes(2**26),
        "a name without an end": b"\x1f\x8b\x08\x08" + bytes(6) + b"x" * 2**24, "members": pack(b"") * 10**5, "plain": head + bytes(100)}
    else: raw |= {"longer": head + bytes(size)}
    kind = draw.choice(list(raw))
    paths[0].write_bytes(raw[kind]), paths[1].write_bytes(pack(b"") if gz else b"")
    return f"idx{'.gz' * gz}: {kind}", lambda: load("mnist", "test", root=folder), size


def picture(draw: random.Random, folder: Path) -> tuple[str, Callable[[], Any], int]:
    "The picture of a run: one that is damaged is none."
    path = folder / "run" / "figures" / "last.npz"
    path.parent.mkdir(parents=True)
    good = {"image": np.zeros((4, 1, 28, 28), np.float16), "mask": np.random.default_rng(0).random((4, 28, 28)), "_step": np.array(5)}
    made = {k: (lambda make=make: path.write_bytes(make(draw))) for k, make in odd_archives("image", good).items()} | odd_places(path, draw)
    kind = draw.choice(list(made))
    made[kind]()

    def read() -> None:
        run = Run(folder=folder / "run", facts={})
        found = run.picture(), run.picture_step()
        raise ValueError("`picture` must be whole: got {}, none.") if found[0] == {} else AssertionError(list(found[0]))

    return f"picture: {kind}", read, 0


def tokens(draw: random.Random, folder: Path) -> tuple[str, Callable[[], Any], int]:
    "The tokens of a variable-length embedding."
    path = folder / "tokens.npz"
    good = {"image": np.zeros((2, 1, 4, 4), np.float32), **{k: np.random.default_rng(0).random((3, 2, 4), np.float32)
                                                          for k in ("z", "mean", "std", "parts", "after")}}
    wrong = {"a name more": {"x": np.zeros(3)}, "of two lengths": {"z": np.zeros((5, 2, 4))}, "texts": {"z": np.full((3, 2, 4), "a")},
             "numbers for its name": {"model": np.zeros(3)}, "scalars": {k: np.array(1.0) for k in good}}
    made = {k: (lambda v=v: path.write_bytes(arrays(**{**good, **v}))) for k, v in wrong.items()}
    made |= {k: (lambda make=make: path.write_bytes(make(draw))) for k, make in odd_archives("z", good).items()} | odd_places(path, draw)
    kind = draw.choice(list(made))
    made[kind]()
    return f"tokens: {kind}", lambda: TokenTrace.load(path), 0


def encoder(draw: random.Random, folder: Path) -> tuple[str, Callable[[], Any], int]:
    "The weights of an encoder, with a digest that fits."
    from safetensors.torch import save_file

    path, small = folder / "mine.safetensors", SmallEncoder(1, (2, 2), (4, 8))
    tensors = small.state_dict()
    shape = {"channels": 1, "strides": [2, 2], "widths": [4, 8]}
    about = lambda **more: {"name": "mine", "architecture": shape, "image_shape": [1, 28, 28], "note": {}, **more}

    def write(about: Any, tensors: dict = tensors) -> None:
        text = about if isinstance(about, str) else json.dumps(about)
        save_file(tensors, path, metadata={"about": text, "sha256": weights_digest(tensors)})

    def header(text: bytes, length: int | None = None, data: bytes = b"") -> None:
        path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)

    def entry(shape: list, size: int) -> bytes: return json.dumps({"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()

    built = lambda **more: about(architecture={**shape, **more})
    made = {
        "a wide one": lambda: write(built(widths=[10**9, 10**9])), "wide beyond bits": lambda: write(built(widths=[10**400, 8])),
        "a wide one whose blocks fit": lambda: write(built(widths=[4, 65_536])), "channels": lambda: write(built(channels=10**9)),
        "a million blocks": lambda: write(built(widths=[8] * 10**5, strides=[1] * 10**5)), "no blocks": lambda: write(built(widths=[], strides=[])),
        "strides of 0": lambda: write(built(strides=[0, 0])), "texts": lambda: write(built(widths="48")), "truth": lambda: write(built(widths=[True, 8])),
        "other words": lambda: write(built(generator=5)), "no architecture": lambda: write(about(architecture=None)),
        "pictures of 10^9 pixels": lambda: write(about(image_shape=[1, 10**9, 10**9])), "no pictures": lambda: write(about(image_shape=[])),
        "pictures of texts": lambda: write(about(image_shape=["1", "28", "28"])), "a note of numbers": lambda: write(about(note=5)),
        "brackets": lambda: write("[" * 10**5), "digits": lambda: write("9" * 10**5), "null": lambda: write("null"),
        "other weights": lambda: write(about(), {k: v for k, v in list(tensors.items())[1:]}),
        "larger weights": lambda: write(about(), {**tensors, "block1.0.weight": torch.zeros(400, 100, 30, 30)}),
        "another digest": lambda: save_file(tensors, path, metadata={"about": json.dumps(about()), "sha256": "0" * 64}),
        "no metadata": lambda: save_file(tensors, path), "a header of a hundred megabytes": lambda: header(b" " * (99 * 10**6 - 2) + b"{}"),
        "a header that says it is long": lambda: header(b"{}", 2**63), "a header without an end": lambda: header(b"{}", 200_000),
        "many tensors": lambda: header(json.dumps({f"{i}": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]} for i in range(4000)}).encode()),
        "an exabyte": lambda: header(entry([10**9, 10**9], 4 * 10**18)), "more than there is": lambda: header(entry([2**28], 2**30)),
        "axes": lambda: header(entry([1] * 10**4, 4), None, bytes(4)), "negative": lambda: header(entry([-1], 4), None, bytes(4)),
        "random": lambda: path.write_bytes(draw.randbytes(draw.randrange(5000))), "nothing": lambda: path.write_bytes(b""),
        "cut": lambda: (save_encoder(small, path, name="a", image_shape=(1, 28, 28)), path.write_bytes(path.read_bytes()[:-9])),
        "one bit": lambda: (save_encoder(small, path, name="a", image_shape=(1, 28, 28)), path.write_bytes(path.read_bytes()[:-9] + bytes(9))),
        **odd_places(path, draw)}
    kind = draw.choice(list(made))
    made[kind]()
    return f"encoder: {kind}", lambda: read_encoder(path), 0


TRAINER = None  # Made once, before the files are read


def checkpoint(draw: random.Random, folder: Path) -> tuple[str, Callable[[], Any], int]:
    "A checkpoint with a hash that fits."
    path, state = folder / "a.ckpt", copy.deepcopy(TRAINER.session.state())
    sealed = lambda body: path.write_bytes(MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    whole = save_checkpoint(state, path).read_bytes()[len(MAGIC) + 65:]
    path.unlink()

    def changed(**more: Any) -> None: save_checkpoint({**state, **more}, path)

    def said(words: bytes) -> None:
        buffer = io.BytesIO()
        with zipfile.ZipFile(io.BytesIO(whole)) as old, zipfile.ZipFile(buffer, "w") as new:
            for part in old.infolist(): new.writestr(part.filename, words if part.filename.endswith(".pkl") else old.read(part))
        sealed(buffer.getvalue())

    weight = next(iter(state["model"]))
    model = lambda tensor: changed(model={**state["model"], weight: tensor})
    calls = lambda what, *words: b"\x80\x02c" + what.replace(" ", "\n").encode() + b"\n(" + b"".join(
        b"\x8a\x05" + struct.pack("<q", w)[:5] for w in words) + b"tR."
    made = {
        "a step of 10^400": lambda: changed(step=10**400), "settings of brackets": lambda: changed(settings="[" * 10**6),
        "a large weight": lambda: model(torch.zeros(1).expand(10**6, 10**6)), "no memory": lambda: model(torch.empty(3, device="meta")),
        "many weights": lambda: changed(model={f"w{i}": torch.zeros(1) for i in range(3000)}), "no model": lambda: changed(model=None),
        "a long history": lambda: changed(history={"stride": 1, "columns": {"loss": torch.zeros(1).expand(2, 10**9)}}),
        "lists": lambda: said(b"\x80\x02" + b"]" * 10**6 + b"."), "marks": lambda: said(b"\x80\x02" + b"(" * 10**7 + b"."),
        "sets": lambda: said(b"\x80\x04" + b"\x8f" * 10**6 + b"."), "a long pickle": lambda: said(b"\x80\x02X" + struct.pack("<I", 2**25) + bytes(2**25) + b"."),
        "a call of bytearray": lambda: said(calls("__builtin__ bytearray", 10**11)), "a tensor of a terabyte": lambda: said(calls("torch Tensor", 2**38)),
        "a call of exec": lambda: said(pickle.dumps(exec, 2)), "many parts": lambda: sealed(zipped([(b"a/%d" % i, 0, b"", 0, 0) for i in range(60_000)])),
        "deflated": lambda: sealed(zipped([(b"a/data.pkl", 8, deflated(b"\x80\x02", 2000), 2000 * 2**20, 0)])),
        "random": lambda: sealed(draw.randbytes(5000)), "nothing": lambda: sealed(b""), "cut": lambda: sealed(whole[: draw.randrange(len(whole))]),
        "another hash": lambda: path.write_bytes(MAGIC + b"0" * 64 + b"\n" + whole), "no header": lambda: path.write_bytes(whole), **odd_places(path, draw)}
    kind = draw.choice(list(made))
    made[kind]()

    def read() -> None:
        before = copy.deepcopy(TRAINER.session.state())
        try: TRAINER.resume(path)
        finally: assert repr(TRAINER.session.state()) == repr(before) and TRAINER.step_count == 3, "the trainer was changed"

    return f"checkpoint: {kind}", read, 0


def journal(draw: random.Random, folder: Path) -> tuple[str, Callable[[], Any], int]:
    "The files of a run, and settings as text."
    lists, run, lines = b"[" + b"[]," * 10**7 + b"[]]", folder / "run.json", folder / "metrics.jsonl"
    texts = {"lists": lists, "ones": b"[" + b"1," * 15 * 10**6 + b"1]", "floats": b"[" + b".5," * 10**7 + b"5]", "an object of lists": b'{"a": %s}' % lists,
             "keys": b"{" + b'"":0,' * 6 * 10**6 + b'"":0}', "texts": b"[" + b'"",' * 10**7 + b'""]', "depth": b"[" * 3 * 10**7,
             "objects in objects": b'{"a":' * 6 * 10**6, "ends of lists": b"]" * 3 * 10**7, "a long text": b'"' + b"," * 3 * 10**7}
    rows = {"a row of lists": b'{"a":' + lists + b"}\n", "empty objects": b"{}\n" * 10**7, "lines of nothing": b"\n" * 3 * 10**7, "a deep row": b'{"a":' * 3 * 10**6,
            "rows of texts": b'"a"\n' * 5 * 10**6}
    kind = draw.choice([*texts, *rows])

    def rows_of() -> None:
        if (found := read_lines(lines)).rows or not found.skipped: return
        raise ValueError("every row must be refused: they are")

    path, read = (lines, rows_of) if kind in rows else (run, lambda: read_json(run))
    path.write_bytes((rows | texts)[kind])
    if kind in texts and draw.random() < 0.3: return f"settings: {kind}", lambda: from_json(MeanRun, run.read_text()), 2 * run.stat().st_size
    return f"journal: {kind}", read, 2 * path.stat().st_size


DOORS = {"journal": journal, "image_set": image_set, "idx": idx, "picture": picture, "tokens": tokens, "encoder": encoder, "checkpoint": checkpoint}


def listing(folder: Path) -> list[tuple[str, int, int]]:
    "What lies in a folder, and when it was changed."
    return sorted((str(p.relative_to(folder)), os.lstat(p).st_size, os.lstat(p).st_mtime_ns) for p in folder.rglob("*"))


def peak() -> int: return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Bytes


def attempt(read: Callable[[], Any], folder: Path) -> dict[str, Any]:
    "Read in a child: what it said, how much more memory than before it had at its peak, and its seconds of processor time."
    ours, theirs = os.pipe()
    if not (child := os.fork()):
        before, at, found = peak(), listing(folder), {"said": "", "type": "", "trace": ""}
        try: read()
        except BaseException as error:
            found = {"said": str(error)[:600], "type": type(error).__name__, "trace": "".join(traceback.format_exception(error))[-1500:]}
        used = resource.getrusage(resource.RUSAGE_SELF)
        found |= {"memory": peak() - before, "seconds": used.ru_utime + used.ru_stime, "changed": listing(folder) != at}
        with os.fdopen(theirs, "w") as out: out.write(json.dumps(found))
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as back: text = back.read()
    status = os.waitpid(child, 0)[1]
    return json.loads(text) if text else {"said": "", "type": f"the process ended with {status}", "memory": 0, "seconds": 0, "changed": False,
                                         "trace": ""}


def warm(folder: Path, doors: list[str]) -> None:
    "Every reader reads a good file, so that nothing has to be imported later."
    global TRAINER
    if "checkpoint" in doors:
        TRAINER = Trainer(MeanRun().replace(steps=4, device="cpu")).fit(3, progress=False)
        TRAINER.resume(save_checkpoint(TRAINER.session.state(), folder / "good.ckpt"))
    read_encoder(save_encoder(SmallEncoder(1), folder / "good.safetensors", name="good", image_shape=(1, 28, 28)))
    (folder / KNOWN["mnist"].files[1]).write_bytes(arrays(images=np.zeros((2, 28, 28), np.uint8), labels=np.zeros(2, int), indices=np.arange(2),
                                                          classes=np.array(["a"])))
    load("mnist", "test", root=folder)


def main(folder: Path, seed: int, count: int, *doors: str) -> None:
    torch.set_num_threads(1)
    (folder / "good").mkdir(parents=True)
    doors = list(doors or DOORS)
    warm(folder / "good", doors)
    draw = random.Random(seed)
    for number in range(count):
        place = folder / str(number)
        place.mkdir()
        kind, read, declared = DOORS[doors[number % len(doors)]](draw, place)
        size = sum(os.lstat(p).st_blocks * 512 for p in place.rglob("*") if not p.is_symlink() and p.is_file())
        print(json.dumps({"kind": kind, "size": max(size, declared), **attempt(read, place)}), flush=True)
        for path in place.rglob("*"):
            if path.is_symlink() or path.is_file(): path.unlink()  # a bomb is small, and a hundred are not


if __name__ == "__main__": main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), *sys.argv[4:])
