"""Whether every live slider can be moved to its end and back: a run that was disturbed for 80 steps against runs that never were.

python benchmarks/there_and_back.py nem --set batch=8 images=500 [encoder=swav] [--only kl_scale fill] --cells FILE

The sliders, their ends and what they depend on come from the settings of the family, so a new family needs no line here. Each run is
trained for a tenth of its steps, one slider is moved to a strong value for 80 steps and back, and the figures that tell runs of the
family apart are compared 200 steps later with those of runs that never left (100 steps after the return they are printed too). A slider
is back when the mean over 3 seeds of the first of them, which decides what run is best, and of every held-out one lies in the 95 %
prediction interval of one run more, from 5 seeds that never left, or within half a per cent of their mean, where seeds hardly differ.
Where the held-out figures alone are there, it says "held": the training loss is on its way, after 80 steps fewer at the usual value.
Other terms of training are printed and not judged. Each finished run is a line of FILE, and the same command goes on where an interrupted
one stopped; with everything there it prints the table alone. A run of NEM (batch=8) takes 4 seconds on one quiet core, of HVAE 1, of SSL
(batch=32) 12.
"""

import argparse
import dataclasses
import itertools
import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from machine import machine
from scipy.stats import t as student

from latentlab.core.registry import find_family
from latentlab.core.settings import FieldInfo, Range, Settings
from latentlab.facade import make_run
from latentlab.train.session import NonFiniteStep
from latentlab.train.trainer import Trainer

AWAY, BACK = 80, (100, 200)  # Steps with the strong value; steps after the return at which is measured


@dataclass(frozen=True, kw_only=True)
class Move:
    "One slider moved to one value."
    path: str  # Of the field
    name: str  # Its short name
    there: Any  # The strong value
    home: Any  # The value before and after


def live_fields(run: Settings) -> dict[str, FieldInfo]:
    "Every live field of a run that is in force: one that depends on another only while that has the value."
    fields = run.fields()
    seen = {}
    for path, info in fields.items():
        if info.kind != "live": continue
        if info.when is not None:
            sibling = fields[".".join([*path.split(".")[:-1], info.when[0]])]
            if sibling.value != info.when[1]: continue
        seen[path] = info
    return seen


def modes(run: Settings) -> Iterator[tuple[str, Settings]]:
    "A run for each value of the choices and switches that live fields depend on: all penalties, all kinds of scale."
    fields = run.fields()
    parents = dict.fromkeys(".".join([*path.split(".")[:-1], info.when[0]]) for path, info in fields.items()
                            if info.kind == "live" and info.when is not None)
    ways = {path: fields[path].choices or (False, True) for path in parents if fields[path].choices or fields[path].type is bool}
    for values in itertools.product(*ways.values()):
        changes = dict(zip(ways, values))
        yield ", ".join(f"{fields[path].name} {value}" for path, value in changes.items()) or "defaults", run.replace(changes)


def strong_values(info: FieldInfo) -> tuple[Any, ...]:
    "The other choices, the other state of a switch, both ends of a number; of what is drawn from a range, its two halves."
    if isinstance(info.value, Range):
        low, middle, high, scale = info.value.low, info.value.middle, info.value.high, info.value.scale
        return Range(low, middle, scale), Range(middle, high, scale)
    if info.choices: values = info.choices
    elif info.type is bool: values = (False, True)
    else: values = tuple((float(end),) if info.type is tuple else info.type(end) for end in (info.low, info.high) if end is not None)
    return tuple(value for value in values if value != info.value)


def moves(run: Settings, only: Sequence[str] = ()) -> Iterator[Move]:
    "Every move that the settings allow."
    for path, info in live_fields(run).items():
        if only and info.name not in only: continue
        for value in strong_values(info):
            try: run.replace({path: value})
            except ValueError: continue  # refused beside the other settings: a slider that cannot go there need not come back
            yield Move(path=path, name=info.name, there=value, home=info.value)


def figures(trainer: Trainer, names: Sequence[str]) -> dict[str, float]:
    "The figures that tell runs apart: means of the last 50 training steps, or of held-out data."
    held, curves = trainer.measure().figures, trainer.snapshot().curves.values
    found = {f"held_out/{name}": value for name, value in held.items()}
    found |= {name: float(values[-50:].mean()) for name, values in curves.items() if name in names}
    return {name: found[name] for name in names if name in found}


def there_and_back(trainer: Trainer, start: Path, move: Move | None, names: Sequence[str], *, away: int = AWAY,
                   back: Sequence[int] = BACK) -> list[dict[str, float]]:
    "Figures after the move, then at each stop of the way back; of the undisturbed run for no move."
    trainer.resume(start)
    found = []
    try:
        if move: trainer.set({move.path: move.there})
        trainer.fit(away, progress=False)
        found.append(figures(trainer, names))
        if move: trainer.set({move.path: move.home})
        for before, after in zip((0, *back), back):
            trainer.fit(after - before, progress=False)
            found.append(figures(trainer, names))
    except NonFiniteStep: found += [dict.fromkeys(names, math.nan)] * (1 + len(back) - len(found))
    return found


def interval(values: Sequence[float], least: float = 0.005) -> tuple[float, float]:
    "95 % prediction interval of one more run; at least half a per cent of the mean to each side."
    n, mean = len(values), statistics.fmean(values)
    half = student.ppf(0.975, n - 1) * statistics.stdev(values) * math.sqrt(1 + 1 / n) if n > 1 else 0.0
    half = max(half, least * abs(mean))
    return mean - half, mean + half


class Cells:
    "Finished runs: in memory, and a line each in a file from which an interrupted survey goes on."

    def __init__(self, about: Mapping[str, Any], path: Path | None = None):
        self.path, self.rows, about = path, {}, json.loads(json.dumps(about))
        if path is None or not path.exists() or not (lines := path.read_text().splitlines()):
            if path is not None: path.write_text(json.dumps(about) + "\n")
            return
        kept = json.loads(lines[0])
        if differing := [name for name in about if name != "machine" and kept.get(name) != about[name]]:
            raise SystemExit(f"`--cells` must be a file of the same runs: got {path} of other {', '.join(differing)}. Name a new file.")
        for text in lines[1:]:
            try: row = json.loads(text)
            except json.JSONDecodeError: continue  # cut off by the end of the process
            self.rows[self.key(row["mode"], row["seed"], Move(**row["move"]) if row["move"] else None)] = row["figures"]

    def key(self, mode: str, seed: int, move: Move | None) -> str:
        "One text for one run."
        return json.dumps([mode, seed, move and dataclasses.astuple(move)])

    def put(self, mode: str, seed: int, move: Move | None, found: list[dict[str, float]]) -> None:
        "Keep a finished run."
        self.rows[self.key(mode, seed, move)] = found
        if self.path is None: return
        row = dict(mode=mode, seed=seed, move=move and dataclasses.asdict(move), figures=found)
        text = self.path.read_text()
        with self.path.open("a") as file: file.write(("" if text.endswith("\n") else "\n") + json.dumps(row) + "\n")


def survey(run: Settings, names: Sequence[str], *, seeds: int = 3, only: Sequence[str] = (), away: int = AWAY, never: int = 0,
           back: Sequence[int] = BACK, warm: int | None = None, mode: str = "defaults", cells: Cells | None = None,
           say=lambda line: None) -> list[dict[str, Any]]:
    "One row for each slider and strong value: figures of every seed, those of the runs that never left, and whether it is back."
    warm, cells, never = warm or run.train.steps // 10, cells or Cells({}), max(never, seeds)
    wanted = list(moves(run, only))
    for seed in range(never):
        missing = [one for one in (None, *(wanted if seed < seeds else ())) if cells.key(mode, seed, one) not in cells.rows]
        if not missing: continue
        # measured and saved by hand only, so that nothing else is in the time
        own = run.replace({"train.seed": seed, "train.check_every": 10**6, "train.checkpoint_every": 10**6, "train.device": "cpu"})
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer(own, folder=folder).fit(warm, progress=False)
            start = trainer.checkpoint()
            start = start.rename(start.with_name("start.ckpt"))
            for move in missing:
                began = time.perf_counter()
                cells.put(mode, seed, move, there_and_back(trainer, start, move, names, away=away, back=back))
                what = f"{move.name} {move.home} -> {move.there}" if move else "never left"
                say(f"{mode}, seed {seed}: {what}, {time.perf_counter() - began:.1f} s")
            trainer.stop()
    plain = [cells.rows[cells.key(mode, seed, None)] for seed in range(never)]
    return [compare(move, plain, [cells.rows[cells.key(mode, seed, move)] for seed in range(seeds)]) for move in wanted]


def compare(move: Move, plain: Sequence[list[dict[str, float]]], runs: Sequence[list[dict[str, float]]]) -> dict[str, Any]:
    "One slider and strong value: what the runs that left and came back have, and what those that never left have."
    row = dict(slider=move.name, home=move.home, there=move.there, figures={})
    for name in runs[0][0]:
        low, high = interval([one[-1][name] for one in plain])
        at = [statistics.fmean(one[i][name] for one in runs) for i in range(len(runs[0]))]
        row["figures"][name] = dict(never=statistics.fmean(one[-1][name] for one in plain), low=low, high=high, there=at[0],
                                    never_there=statistics.fmean(one[0][name] for one in plain), back=at[1:],
                                    seeds=[one[-1][name] for one in runs], within=bool(low <= at[-1] <= high))
    row["held"] = all(one["within"] for name, one in row["figures"].items() if name.startswith("held_out/"))
    row["back"] = row["held"] and next(iter(row["figures"].values()))["within"]
    return row


def line(row: Mapping[str, Any]) -> str:
    "A row of the table: each figure at the strong value, then at the stops of the way back, then what runs that never left have."
    cells = [f"{name.removeprefix('held_out/')} {one['there']:.4g} > {' > '.join(f'{value:.4g}' for value in one['back'])} in "
             f"[{one['low']:.4g}, {one['high']:.4g}]{'' if one['within'] else ' OUT'}" for name, one in row["figures"].items()]
    away = f"{row['slider']} {row['home']} -> {row['there']}"
    return f"{'back' if row['back'] else 'held' if row['held'] else 'NOT '} | {away:42} | " + " | ".join(cells)


def read_value(text: str) -> Any:
    try: return json.loads(text)
    except json.JSONDecodeError: return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("family")
    parser.add_argument("--set", nargs="*", default=[], help="name=value of the run")
    parser.add_argument("--seeds", type=int, default=3, help="that leave and come back")
    parser.add_argument("--never", type=int, default=5, help="seeds of runs that never leave")
    parser.add_argument("--only", nargs="*", default=[], help="sliders; all when left out")
    parser.add_argument("--modes", nargs="*", default=[], help="numbers of the modes, from 0; all when left out")
    parser.add_argument("--warm", type=int, default=None, help="steps before; a tenth of the run's when left out")
    parser.add_argument("--away", type=int, default=AWAY, help="steps with the strong value")
    parser.add_argument("--cells", type=Path, default=None, help="a line for each finished run; the same command goes on from it")
    parser.add_argument("--json", default=None, help="the table as JSON")
    args = parser.parse_args()
    torch.set_num_threads(1)
    changes = {name: read_value(value) for name, value in (one.split("=", 1) for one in args.set)}
    base, began, found = make_run(args.family, changes), time.perf_counter(), {}
    facts = {"family": args.family, "set": changes, "away": args.away, "back": list(BACK), "warm": args.warm, "machine": machine()}
    cells = Cells(facts, args.cells)
    print(f"{args.family} {changes or ''}: {machine()}", flush=True)
    for number, (label, run) in enumerate(modes(base)):
        if args.modes and str(number) not in args.modes: continue
        found[label] = survey(run, find_family(args.family).summary, seeds=args.seeds, never=args.never, only=args.only, warm=args.warm,
                              away=args.away, mode=label, cells=cells, say=lambda text: print(text, flush=True))
        print(f"\n{label}, {args.seeds} seeds, {args.away} steps away, {BACK} back", *map(line, found[label]), sep="\n", flush=True)
    rows = [row for part in found.values() for row in part]
    back, held = (sum(row[name] for row in rows) for name in ("back", "held"))
    print(f"\n{back} of {len(rows)} back, {held} by their held-out figures, {(time.perf_counter() - began) / 60:.1f} minutes")
    if args.json: Path(args.json).write_text(json.dumps({"about": facts | {"seeds": args.seeds}, "modes": found}, indent=1) + "\n")


if __name__ == "__main__": main()
