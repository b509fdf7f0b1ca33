"""Forged checkpoints, each with a hash that fits: refused by name, at once, within the declared size, and nothing is changed."""
import copy
import hashlib
import io
import pickle
import random
import time
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch
from latentlab.train import checkpoint
from latentlab.train.checkpoint import MAGIC, load_checkpoint, save_checkpoint
from latentlab.train.example import MeanRun
from latentlab.train.trainer import Trainer

RUN = MeanRun().replace(steps=4, device="cpu")


@pytest.fixture(scope="module")
def trainer(): return Trainer(RUN).fit(3, progress=False)


def same(a, b) -> bool:
    if isinstance(a, torch.Tensor): return torch.equal(a, b)
    if isinstance(a, dict): return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)): return len(a) == len(b) and all(map(same, a, b))
    return a == b


def sealed(path: Path, body: bytes) -> Path:
    "A file with the header and the hash of a checkpoint."
    path.write_bytes(MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    return path


def archive(**parts: bytes) -> bytes:
    "A deflated archive of the parts, named as torch names them."
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in parts.items(): file.writestr(f"archive/{name.replace('__', '.')}", data)
    return buffer.getvalue()


class Call:
    "Pickles as a call of anything."
    def __init__(self, what, *words): self.what, self.words = what, words
    def __reduce__(self): return self.what, self.words


def mapped(path: Path, change) -> Path:
    "A checkpoint of torch with each of its parts changed."
    buffer, out = io.BytesIO(path.read_bytes()[len(MAGIC) + 65:]), io.BytesIO()
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(out, "w") as new:
        for part in old.infolist(): new.writestr(part.filename, change(part.filename, old.read(part)))
    return sealed(path, out.getvalue())


def forge(state: dict, draw: random.Random, path: Path) -> Path:
    "One forged file."
    state = copy.deepcopy(state)
    weight = next(iter(state["model"]))
    like = state["model"][weight]
    moments = state["optimisers"][0]["state"][0]
    kinds = [
        lambda: state.update(step=draw.choice([10**400, -1, True, 1.5, "3", None, [3], 2**60, torch.tensor(3)])),
        lambda: state.update(seconds=draw.choice([10**400, float("nan"), -1.0, "x", None, float("inf"), True])),
        lambda: state.update(settings=draw.choice(["[" * 10**5, "9" * 5000, "null", "", '{"version": "0", "settings": null}', 5, None, "\\ud800",
                                                   state["settings"].replace("0.05", "1" + "0" * 400)])),
        lambda: state.update(history=draw.choice([None, {}, {"stride": 10**400, "columns": 5}, {"stride": 0, "columns": {}}, [],
                                                  {"stride": 1, "columns": {"loss": torch.zeros(1).expand(2, 10**9)}}])),
        lambda: state.update(optimisers=draw.choice([None, [], [{}], [{"state": {5: {}}, "param_groups": []}], [{"state": {True: {}}}], "x",
                                                     state["optimisers"] * 2])),
        lambda: state["model"].update({weight: draw.choice([torch.zeros(1).expand(10**6, 10**6), torch.zeros(3), like.double(), like.to_sparse(),
                                                            torch.zeros(1).expand(like.shape), torch.empty(like.shape, device="meta"), None, 5])}),
        lambda: moments.update(exp_avg=draw.choice([torch.zeros(1).expand(like.shape), like.half(), like.to_sparse(), torch.zeros(7), 1.0, None])),
        lambda: state["model"].update(draw.choice([{"extra": torch.zeros(2)}, {f"w{i}": torch.zeros(1) for i in range(1000)}])),
        lambda: state["model"].pop(weight), lambda: state.pop(draw.choice(list(state))), lambda: state.update({10**30: 1}),
    ]
    raw = [
        lambda: sealed(path, draw.randbytes(draw.randrange(5000))), lambda: sealed(path, b""), lambda: sealed(path, b"PK\3\4" + bytes(100)),
        lambda: sealed(path, archive(data__pkl=bytes(2**28), version=b"3\n")),
        lambda: sealed(path, archive(data__pkl=pickle.dumps({}, 2), version=b"3\n", byteorder=b"little", **{"data/0": bytes(2**28)})),
        lambda: mapped(save_checkpoint(state, path), lambda name, data: pickle.dumps(Call(bytearray, 10**11), 2) if name.endswith("data.pkl") else data),
        lambda: mapped(save_checkpoint(state, path), lambda name, data: pickle.dumps(Call(exec, "raise SystemExit"), 2)
                       if name.endswith("data.pkl") else data),
        lambda: mapped(save_checkpoint(state, path), lambda name, data: data[:-5] if name.endswith("data.pkl") else data),
        lambda: mapped(save_checkpoint(state, path), lambda name, data: data[:2] if "/data/" in name else data),
        lambda: sealed(path, pickle.dumps(state["settings"])), lambda: sealed(path, pickle.dumps(Call(print, "ran"))),
        lambda: sealed(path, (data := save_checkpoint(state, path).read_bytes()[len(MAGIC) + 65:])[:draw.randrange(len(data))]),
    ]
    if draw.random() < 0.4: return draw.choice(raw)()
    draw.choice(kinds)()
    return save_checkpoint(state, path)


def refused(trainer: Trainer, path: Path) -> str:
    "What is said about a forged file; nothing is changed, and little time and memory is spent."
    before, begun, size = copy.deepcopy(trainer.session.state()), time.process_time(), path.stat().st_size
    tracemalloc.start()
    with pytest.raises(ValueError) as caught: trainer.resume(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert type(caught.value) is ValueError and "must" in str(caught.value), repr(caught.value)
    assert peak < 1.2 * size + 2**24 and time.process_time() - begun < 5, (peak, size)
    assert same(trainer.session.state(), before) and trainer.step_count == 3
    return str(caught.value)


def test_10_forged_checkpoints(trainer, tmp_path, unchecked) -> None:
    draw, state = random.Random(0), trainer.session.state()
    for number in range(10): refused(trainer, forge(state, draw, tmp_path / f"{number}.ckpt"))
    path = save_checkpoint(state, tmp_path / "good.ckpt")
    assert same(load_checkpoint(path), state) and trainer.resume(path).step_count == 3


@pytest.mark.slow
def test_100_forged_checkpoints(trainer, tmp_path, unchecked, capsys) -> None:
    draw, state = random.Random(1), trainer.session.state()
    for number in range(100):
        path = forge(state, draw, tmp_path / f"{number}.ckpt")
        try: refused(trainer, path)
        except BaseException as error: raise AssertionError(f"file {number}: {error!r}") from error
        path.unlink()
    assert "ran" not in capsys.readouterr().out


# What can be saved can be read ---------------------------------------------------------------------------------------

def test_what_could_not_be_read_is_not_saved(tmp_path, monkeypatch) -> None:
    "A state beyond a bound of the reader is refused by name when it is saved; the file before it stays, and training goes on."
    running = Trainer(RUN.replace(checkpoint_every=2), folder=tmp_path).fit(2, progress=False)
    path = running.checkpoint()
    kept = path.read_bytes()
    for name, few in (("MOST_PARTS", 2**8), ("MOST_PICKLE", 2**8), ("MOST_WORDS", (10, 1))):
        with monkeypatch.context() as patch:
            patch.setattr(checkpoint, name, few)
            running.fit(1, progress=False)
            with pytest.raises(ValueError, match="`state` must be such that it can be read again: got a state of which") as caught: running.checkpoint()
            assert "fewer and larger tensors" in str(caught.value) and "no checkpoint written, training goes on: `state` must" in running.notice
            assert path.read_bytes() == kept
    assert Trainer(RUN, folder=tmp_path).resume(path).step_count == 2 and running.fit(1, progress=False).notice == ""


@pytest.mark.slow
def test_a_checkpoint_of_20_000_tensors_is_read(tmp_path) -> None:
    state = {"model": {f"w{number}": torch.full((2,), float(number)) for number in range(20_000)}}
    assert same(load_checkpoint(save_checkpoint(state, tmp_path / "many.ckpt")), state)
    with pytest.raises(ValueError, match="a state of which it has a directory of"):
        save_checkpoint({"model": {f"w{number}": torch.zeros(1) for number in range(50_000)}}, tmp_path / "more.ckpt")
    assert [one.name for one in tmp_path.iterdir()] == ["many.ckpt"]
