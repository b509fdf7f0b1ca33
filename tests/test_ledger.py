"""The audit of a ledger: the table of January, spoilt rows, rounding, and numbers from a model whose likelihood is known."""
import math
from dataclasses import fields, replace

import latentlab as ll
import pytest
import torch
from latentlab.core.registry import find_family
from latentlab.metrics.ledger import JANUARY, LedgerRow, audit, audit_row, ledger_line, read_line
from latentlab.panels.display import in_labels

ODD = {"6495": {"analytic", "zero_gap"}, "6491": {"analytic", "zero_gap"}, "6505": {"analytic", "huge_gap"}, "6509": {"jensen"},
       "6513": {"huge_gap"}, "6512": {"jensen"}}
SOUND = {"6498", "6503", "6501", "6531", "6511"}
ROW = LedgerRow(
    id="1", model="VAE", data="MNIST", estimator="iw", kl_kind="sampled", samples=10, split="test", unit="nats", bound=-82.34,
    recon=-60.81, kl=22.19, decimals=2,
    oracle=-80.0, oracle_se=0.1, bound_se=0.2, gap_se=0.0,
)


def rules(row, **changes): return {one.rule for one in audit_row(replace(row, **changes))}


# January ---------------------------------------------------------------------------------------------------------------

def test_january_has_six_odd_rows_and_five_sound_ones():
    found = audit(JANUARY)
    assert {one.id: {other.rule for other in found if other.id == one.id} for one in found} == ODD
    assert {row.id for row in JANUARY} == set(ODD) | SOUND and len(JANUARY) == 11


def test_january_is_found_by_its_numbers_alone():
    found = audit([replace(row, kl_kind="sampled") for row in JANUARY])
    assert {one.id: {one.rule} for one in found} == {id: rule - {"analytic"} for id, rule in ODD.items()}


def test_the_gaps_are_those_of_the_table():
    for row in JANUARY:
        printed = {"6498": 0.66, "6503": 0.92, "6501": 0, "6531": 0, "6495": 0, "6491": 0.01, "6505": 9.72, "6511": 0.66, "6509": -0.32,
                   "6513": 39.64, "6512": -0.44}
        assert row.gap == pytest.approx(printed[row.id], abs=1e-9)
        assert (row.samples == (1 if row.id in ("6501", "6531") else 10)
                and row.kl_kind == ("analytic" if row.id in ("6531", "6495", "6491", "6505") else "sampled"))


def test_the_mistyped_kl_is_named():
    message = next(one.message for one in audit(JANUARY) if one.id == "6505" and one.rule == "huge_gap")
    assert "31.96" in message and "22.24" in message


# spoilt rows -----------------------------------------------------------------------------------------------------------

def test_the_sound_row_is_quiet(): assert audit([ROW]) == ()


SPOILT = {
    "id": ("", "stated"), "model": (" ", "stated"), "data": ("", "stated"), "estimator": ("elbo", "equality"),
    "kl_kind": ("analytic", "analytic"), "samples": (1, "equality"),
    "split": ("", "stated"), "unit": ("bits", "stated"), "bound": (82.34, "oracle"), "recon": (60.81, "jensen"), "kl": (-22.19, "kl_sign"),
    "gap_se": (-1.0, "stated"), "bound_se": (-0.1, "stated"), "oracle": (-84.0, "oracle"), "oracle_se": (None, "stated"),
}


def test_each_spoilt_field_is_found():
    for name in [field.name for field in fields(LedgerRow) if field.name not in ("decimals", "weights")]:
        value, rule = SPOILT[name]
        assert rule in rules(ROW, **{name: value})


@pytest.mark.parametrize(("changes", "rule"), [
    (dict(bound=-83.02), "jensen"), (dict(bound=-83.0), "zero_gap"), (dict(bound=-83.01), "zero_gap"),
    (dict(bound=-75.0, oracle=None), "huge_gap"),
    (dict(samples=None), "stated"), (dict(samples=0), "stated"), (dict(samples=-3), "stated"), (dict(estimator=""), "stated"),
    (dict(estimator="IWAE"), "stated"),
    (dict(kl_kind=""), "stated"), (dict(split="tset"), "stated"), (dict(unit=""), "stated"), (dict(bound=math.nan), "finite"),
    (dict(kl=math.inf), "finite"),
    (dict(oracle=math.nan), "oracle"), (dict(oracle=math.inf), "stated"), (dict(oracle_se=math.nan), "stated"),
    (dict(estimator="elbo", bound=-83.1), "jensen"), (dict(samples=1, bound=-82.9), "equality"),
    (dict(kl_kind="analytic", samples=None), "analytic"),
    (dict(kl_kind="analytic", samples=2), "analytic"),
])
def test_spoilt_rows_are_found(changes, rule): assert rule in rules(ROW, **changes)


@pytest.mark.parametrize("changes", [
    dict(bound=-82.99 + 0.02), dict(bound=-83.0, estimator="elbo"), dict(bound=-83.0, samples=1),
    dict(bound=-83.0, samples=1, kl_kind="analytic"),
    dict(bound=-83.0, estimator="elbo", kl_kind="analytic"), dict(bound=-83.5, gap_se=0.2), dict(bound=-60.81, kl=0.0, oracle=None),
    dict(bound=-77.0, oracle=None),
    dict(oracle=-83.0, oracle_se=0.3), dict(oracle=None, oracle_se=None, bound_se=None, gap_se=None), dict(bound=-82.34, samples=100),
])
def test_sound_rows_are_quiet(changes): assert rules(ROW, **changes) == set()


def test_severity_tells_what_cannot_be_from_what_seldom_is():
    severity = {one.rule: one.severity for row in JANUARY for one in audit_row(row)}
    assert severity == {"analytic": "wrong", "jensen": "wrong", "zero_gap": "suspicious", "huge_gap": "suspicious"}


def test_rounding_alone_is_never_found_and_twice_as_much_is():
    for decimals in [0, 1, 2, 4]:
        g = torch.Generator().manual_seed(decimals)
        unit = 10.0**-decimals
        for recon, kl in (100 * torch.rand(300, 2, generator=g, dtype=torch.float64)).tolist():
            figures = [round(value, decimals) for value in (recon - kl, recon, kl)]
            row = replace(ROW, estimator="elbo", decimals=decimals, oracle=None, bound=figures[0], recon=figures[1], kl=figures[2])
            assert audit_row(row) == ()
            assert (rules(row, bound=row.recon - row.kl - 3.1 * unit / 2) == {"jensen"}
                    and rules(row, bound=row.recon - row.kl + 3.1 * unit / 2) == {"equality"})


def test_the_line_of_a_huge_gap_can_be_moved():
    row = replace(ROW, bound=-78.0, oracle=None)
    assert audit([row]) == () and [one.rule for one in audit([row], huge=2)] == ["huge_gap"]
    with pytest.raises(ValueError, match="`huge` must be positive"): audit([row], huge=-1)


# a whole ledger --------------------------------------------------------------------------------------------------------

def test_ids_come_once(): assert [one.rule for one in audit([ROW, ROW, replace(ROW, id="2")])] == ["stated"]


def test_bounds_of_the_same_weights_rise_with_samples():
    first, second = replace(ROW, weights="a"), replace(ROW, id="2", weights="a", samples=100, bound=-82.5)
    for order in ([first, second], [second, first]): assert [(one.id, one.rule) for one in audit(order)] == [("2", "monotone")]
    for change in (dict(weights="b"), dict(weights=""), dict(split="train"), dict(data="other"), dict(bound=-82.0), dict(bound=-82.35),
                   dict(gap_se=0.1)):
        assert audit([first, replace(second, **change)]) == ()


# numbers of a model ----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_triples_of_the_same_draws_are_sound_and_broken_ones_are_not(dtype):
    "Any log-likelihoods and log-ratios will do: Jensen's inequality asks nothing of them."
    for spread in [0.1, 1.0, 3.0]:
        for samples in [2, 10, 200]:
            g = torch.Generator().manual_seed(samples)
            likelihood = (-90 + spread * torch.randn(samples, 500, generator=g, dtype=torch.float64)).to(dtype)
            ratio = (25 + spread * torch.randn(samples, 500, generator=g, dtype=torch.float64)).to(dtype)
            log_mean_exp = lambda t: (t.logsumexp(0) - math.log(len(t))).mean().item()
            given = dict(decimals=None, samples=samples, oracle=None, recon=likelihood.mean().item(), kl=ratio.mean().item())
            assert rules(ROW, bound=log_mean_exp(likelihood - ratio), **given) == set()
            assert rules(ROW, bound=(likelihood - ratio).mean().item(), estimator="elbo", **given) == set()
            assert rules(ROW, bound=-log_mean_exp(ratio - likelihood), **given) == {"jensen"}
            outside = log_mean_exp(likelihood) - ratio.mean().item()
            assert rules(ROW, bound=outside, **{**given, "recon": log_mean_exp(likelihood)}) == {"zero_gap"}
            assert rules(ROW, bound=log_mean_exp(likelihood - ratio),
                         **{**given, "recon": log_mean_exp(likelihood) + 2 * spread**2}) == {"jensen"}


# The line of a run -----------------------------------------------------------------------------------------------------

def test_a_run_says_its_own_line_everywhere(tmp_path, monkeypatch):
    monkeypatch.setenv("LATENTLAB_CACHE", str(tmp_path / "cache"))
    trainer = ll.train("hvae", data="moons", points=400, layers=2, steps=20, device="cpu", progress=False, journal=tmp_path / "runs")
    line = ll.evaluate(trainer, samples=10).ledger
    assert audit([read_line(line)]) == () and line.endswith("@ 10, 1,000 test")
    (note,) = [note for note in find_family("hvae").load_display().notes(trainer.snapshot()) if "copy" in note]
    assert audit([read_line(note["copy"])]) == () and note["copy"].endswith("@ 10, 1,000 test")
    journal = ll.Journal(tmp_path / "runs")
    report = journal.report(journal.rows()[0]["id"])
    assert note["copy"] in report.html and note["copy"] in report.markdown
    assert ll.evaluate(trainer.model, trainer.setup.held_out, samples=5).ledger == "", "nobody said which split these data are"


@pytest.mark.parametrize("change", [{"split": "held out"}, {"samples": None}, {"bound": -84.0}, {"kl": -22.19}, {"recon": float("nan")},
                                    {"unit": "bits"}, {"kl_kind": "analytic"}])
def test_a_wrong_line_cannot_be_written(change):
    sound = replace(ROW, oracle=None, oracle_se=None, bound_se=None, gap_se=None)
    assert ledger_line(sound) == "-82.34 (-60.81, 22.19) @ 10, test"
    with pytest.raises(ValueError, match="`row` must be a sound one"): ledger_line(replace(sound, **change))


@pytest.mark.parametrize("name", ["hvae", "nem", "ssl", "vle"])
def test_advice_uses_the_words_of_the_controls_and_every_control_is_explained(name):
    run = find_family(name).experiment()
    fields = run.fields().values()
    for info in fields: assert info.label in in_labels(f"lower `{info.name}`", run)
    assert [info.path for info in fields if not info.help and info.kind != "view"] == []
