"""Concept-structured VAE: the graph is obeyed, gradients go where they must, interventions leave alone what they must, labels are told
to those that have them, and settings that cannot work are refused.
"""
import copy
import math
import re
from dataclasses import replace

import jaxtyping
import numpy as np
import pytest
import torch
from latentlab.core.batch import Batch, Context
from latentlab.core.factors import Factor
from latentlab.core.graph import Graph
from latentlab.core.settings import Live
from latentlab.data.factored import FactoredImages
from latentlab.data.images import ImageSet
from latentlab.data.sources import with_images
from latentlab.families.csvae.checks import CSVAE_CHECKS, dead_units, gradient_paths, probe_concepts, schedule_shock, swinging_error
from latentlab.families.csvae.concepts import ConceptPrior, concept_levels, parent_mask, prior_jacobian
from latentlab.families.csvae.diagnostics import set_concept
from latentlab.families.csvae.display import CSVAEDisplay
from latentlab.families.csvae.experiment import CSVAERun, concepts_for
from latentlab.families.csvae.gradients import GradientMatrix, gradient_matrix
from latentlab.families.csvae.model import CSVAE, CSVAESettings, abduct, complete, counterfactual
from latentlab.panels.protocol import Event
from latentlab.train.trainer import Trainer

FACTORS = (Factor(name="x"), Factor(name="scale"), Factor(name="shape", kind="categorical", categories=("a", "b", "c")))


def stream(seed: int = 0) -> torch.Generator: return torch.Generator().manual_seed(seed)


def random_graph(draw: torch.Generator, most: int = 7) -> Graph:
    n = int(torch.randint(1, most + 1, (), generator=draw))
    order, chance = torch.randperm(n, generator=draw).tolist(), torch.rand(n, n, generator=draw)
    edges = tuple((f"c{order[i]}", f"c{order[j]}") for i in range(n) for j in range(i + 1, n) if chance[i, j] < 0.4)
    return Graph(tuple(f"c{i}" for i in range(n)), edges)


def small(changes: dict | None = None, factors=FACTORS, shape=(1, 16, 16)) -> CSVAE:
    return CSVAE(CSVAESettings(**({"features": 16, "width": 6} | (changes or {}))), shape, factors, generator=stream())


def moved(model: CSVAE, steps: int = 3) -> CSVAE:
    "A model whose heads of evidence are no longer zero."
    with torch.no_grad():
        for p in model.parameters(): p += 0.05 * torch.randn(p.shape, generator=stream(p.numel()))
    model.steps += steps
    return model


IMAGES = (torch.rand(8, 1, 16, 16, generator=stream(1)) > 0.6).float()


def test_reach_and_jacobian_are_the_graph_for_100_random_graphs() -> None:
    draw = stream(5)
    for trial in range(100):
        graph = random_graph(draw)
        sizes = tuple(torch.randint(1, 4, (len(graph.nodes),), generator=draw).tolist())
        prior = ConceptPrior(graph, sizes, width=3, layers=1, generator=draw)
        assert torch.equal(prior.reach(), parent_mask(graph))
        if trial % 8: continue  # a derivative is slow under the type checks
        strength = prior_jacobian(prior, torch.randn(1, len(sizes), max(sizes), generator=draw))
        assert torch.equal(strength > 0, parent_mask(graph)), str(graph)


def test_every_level_comes_after_its_parents_and_every_concept_once() -> None:
    draw = stream(6)
    for _ in range(50):
        graph = random_graph(draw)
        levels = concept_levels(graph)
        place = {name: k for k, level in enumerate(levels) for name in level}
        assert sorted(name for level in levels for name in level) == sorted(graph.nodes)
        assert all(place[a] < place[b] for a, b in graph.edges)
        assert all(place[n] == 0 or any(place[p] == place[n] - 1 for p in graph.parents(n)) for n in graph.nodes)


@pytest.mark.parametrize("merge", ["residual", "precision", "none"])
def test_the_prior_of_a_trace_is_that_of_its_own_latents(merge: str) -> None:
    model = moved(small({"merge": merge, "graph": Graph(("x", "scale", "shape", "free"), (("x", "scale"), ("scale", "free"), ("x", "free")))}))
    trace = model.trace(IMAGES, generator=stream(2))
    told = model.prior(trace.z)
    assert torch.equal(told.loc, trace.p.loc) and torch.equal(told.log_var, trace.p.log_var)
    assert (trace.kl() >= 0).all() and trace.kl()[:, 3].min() > 0


def test_intervention_moves_descendants_alone_in_random_graphs() -> None:
    draw = stream(7)
    for _ in range(10):
        graph = random_graph(draw)
        model = moved(small({"graph": graph, "sizes": (1,)}, factors=()))
        name = graph.nodes[int(torch.randint(len(graph.nodes), (), generator=draw))]
        with torch.no_grad():
            before, after = model.trace(IMAGES).z, counterfactual(model, IMAGES, {name: torch.full((8, 1), 3.0)})
        changed = {n for n, far in zip(model.names, (after - before).abs().amax((0, 2))) if far > 0}
        assert changed == {name} | graph.descendants(name), (str(graph), name)


def test_abduction_explains_any_latents() -> None:
    model = moved(small({"sizes": (1, 2, 2, 1, 3)}))
    noise = torch.randn(6, 5, 3, generator=stream(3)) * model.real
    torch.testing.assert_close(abduct(model, complete(model, noise)), noise, atol=1e-4, rtol=1e-3)


def test_heads_read_what_a_concept_is_set_to() -> None:
    model = small()
    for name, values in (("x", torch.tensor([0.1, 0.9])), ("scale", torch.tensor([0.0, 1.0]))):
        at = [f.name for f in model.labels.factors].index(name)
        read = (model.labels.maps[at](set_concept(model, name, values))[:, 0] + 1) / 2
        torch.testing.assert_close(read.detach(), values, atol=0.06, rtol=0.0)


def test_labels_are_told_to_the_share_that_has_them_and_count_for_the_others() -> None:
    model = small({"label_share": 0.25})
    y = torch.cat([torch.zeros(8, 2), torch.eye(3)[torch.zeros(8, dtype=torch.long)]], 1)
    told = torch.tensor([1.0, 1, 0, 0, 0, 0, 0, 0])
    ask = lambda extra: model.losses(Batch(x=IMAGES, y=y, extra=extra), Context(live=Live(model.settings), generator=stream(4)))["label"]
    every, some = ask({}), ask({"labelled": told})
    assert (some[2:] == 0).all() and torch.allclose(some[:2], 4 * every[:2])


@pytest.mark.parametrize("changes", [{}, {"merge": "precision"}, {"activation": "relu"}, {"sizes": (1, 2, 2, 1, 3)}, {"likelihood": "gaussian_learnt"},
                                     {"decoder": "separable", "trunk": "moments"}])
def test_the_gradient_matrix_is_as_declared(changes: dict) -> None:
    model = moved(small(changes))
    y = torch.zeros(8, 5)
    y[:, 2] = 1
    found = gradient_matrix(model, Batch(x=IMAGES, y=y), Context(live=Live(model.settings), generator=stream(4), step=1))
    assert (found.missing(), found.forbidden()) == ([], [])
    assert "labels" in found.parts and "prior orientation" in found.parts


def test_paths_that_are_missing_and_paths_that_must_not_be_there_are_named() -> None:
    values, expected = np.array([[0.0, 0.2], [0.3, 0.0]]), np.array([[1, 1], [-1, -1]])
    found = GradientMatrix(terms=("nll", "kl_x"), parts=("trunk", "decoder"), values=values, expected=expected)
    assert (found.missing(), found.forbidden()) == ([("nll", "trunk")], [("kl_x", "trunk")])
    model = moved(small())
    verdict = gradient_paths(replace(probe_concepts(model, IMAGES, generator=stream(3)), step=1, matrix=found))
    assert verdict.level == "bad" and verdict.sentence == "nll does not reach trunk; kl_x reaches trunk"


def test_detach_is_seen_after_one_step_in_a_run() -> None:
    trainer = Trainer(CSVAERun().replace({"data.images": 200, "side": 16, "features": 16, "width": 4, "batch": 16}))
    trainer.fit(1, progress=False)
    grade = lambda: next(v for v in trainer.measure().verdicts if v.name == "gradient")
    assert grade().level == "ok"
    trainer.set(detach=True)
    assert grade().level == "bad" and "nll does not reach trunk" in grade().sentence


def test_an_edge_is_cut_and_drawn_while_weights_stay() -> None:
    from latentlab.families.csvae.display import CSVAEDisplay

    trainer = Trainer(CSVAERun().replace({"data.images": 200, "side": 16, "features": 16, "width": 4, "batch": 16}))
    trainer.fit(5, progress=False)
    kept = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    edit = lambda graph: CSVAEDisplay().on_event(Event(source="concepts", type="edit", value=graph.to_plain()), trainer)
    edit(trainer.run.model.graph.without_edge("x", "orientation"))
    assert not trainer.model.prior.reach().any() and trainer.model.steps == 5
    trainer.set(detach=True)  # nothing was trained since, but the weights were
    assert next(v for v in trainer.measure().verdicts if v.name == "gradient").level == "bad"
    trainer.set(detach=False)
    edit(trainer.run.model.graph.with_edge("x", "orientation"))
    assert all(torch.equal(value, kept[name]) for name, value in trainer.model.state_dict().items())
    trainer.fit(2, progress=False)


@pytest.mark.parametrize(("changes", "sentence"), [
    ({"graph": Graph(("a", "b"), (("a", "b"),))}, "`graph` must name a factor of the data: got a, b"),
    ({"data.name": "mnist"}, "`graph` must name a factor of the data"),
    ({"side": 17}, "side"),
    ({"sizes": (1, 2)}, "one for each of the 5 concepts"),
    ({"sizes": (0,)}, "sizes"),
    ({"kl_weights": (1.0, 2.0)}, "`kl_weights` must be one number"),
    ({"wiring": "chained"}, "tanh or relu"),
])
def test_what_cannot_work_is_refused_before_time_is_spent(changes: dict, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence): CSVAERun().replace({"data.images": 64} | changes).build()


def test_a_cycle_is_printed() -> None:
    with pytest.raises(ValueError, match="a -> b -> c -> a"): Graph(("a", "b", "c"), (("a", "b"), ("b", "c"), ("c", "a")))


@pytest.mark.parametrize(("nodes", "edges", "sentence"), [
    (("a", ""), (), "`nodes` must be names: got ''"), (("a", "a"), (), "`nodes` must be named once: got 'a' 2 times"),
    (("a", "b"), (("a", "c"),), "`edges` must join nodes: got 'c'"),
])
def test_nodes_without_a_name_and_edges_to_nowhere_are_refused(nodes: tuple, edges: tuple, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)): Graph(nodes, edges)


def own_images(values: torch.Tensor, factors: tuple) -> FactoredImages:
    images = (torch.rand(300, 1, 16, 16, generator=stream(8)) > 0.5).to(torch.uint8) * 255
    return FactoredImages(name="mine", split="train", images=images, factors=factors, factor_values=values)


@pytest.mark.parametrize(("values", "sentence"), [
    (torch.full((300, 2), 1.5), "`x` must be from 0 to 1: got 1.5 for image 0, and 300 of 300"),
    (torch.full((300, 2), torch.nan), "`x` must be from 0 to 1: got nan"),
    (torch.zeros(300, 1), "`values` must be [batch, 2], x, y: got (300, 1)"),
])
def test_labels_out_of_range_or_too_few_are_refused(values: torch.Tensor, sentence: str) -> None:
    with pytest.raises(ValueError, match=re.escape(sentence)): own_images(values, FACTORS[:1] + (Factor(name="y"),))


def test_a_share_of_labels_where_there_are_none_is_refused() -> None:
    plain = ImageSet(name="plain", split="train", images=(255 * torch.rand(300, 1, 16, 16, generator=stream(8))).to(torch.uint8))
    with pytest.raises(ValueError, match="`label_share` must be 1 for images without labels: got 0.1"):
        with_images(CSVAERun().replace({"side": 16, "batch": 16, "label_share": 0.1}), plain).build()


def test_a_node_that_no_label_names_is_free_and_the_others_are_tied() -> None:
    own = own_images(torch.rand(300, 2, generator=stream(9)), FACTORS[:1] + (Factor(name="y"),))
    run = CSVAERun().replace({"side": 16, "features": 16, "batch": 16, "graph": Graph(("x", "more"), (("x", "more"),))})
    setup = with_images(run, own).build()
    assert setup.info["labelled"] == "x" and [f.name for f in setup.model.labels.factors] == ["x"] and "entropy" not in setup.info


@pytest.mark.parametrize("name", ["pendulum", "flow", "mnist", "scenes"])
def test_every_kind_of_data_trains(name: str) -> None:
    fitting = concepts_for(name) | ({"label_scale": 0.0} if name == "scenes" else {})
    run = CSVAERun().replace({"data.name": name, "data.images": 300, "side": 16, "features": 16, "width": 4, "batch": 16, **fitting})
    trainer = Trainer(run)
    trainer.fit(3, progress=False)
    found = trainer.measure()
    assert found.figures["nll"] > 0 and {v.level for v in found.verdicts} <= {"ok", "warn"}
    assert ("true" in trainer.snapshot().views) == (name in ("pendulum", "flow"))


def test_one_concept_is_enough() -> None:
    model = small({"graph": Graph(("x",)), "sizes": (2,)})
    assert model.levels == (("x",),) and model.trace(IMAGES).z.shape == (8, 1, 2)


def test_a_switch_in_the_panel_is_judged_at_once() -> None:
    from latentlab.panels.panel import Panel

    trainer = Trainer(CSVAERun().replace({"data.images": 200, "side": 16, "features": 16, "width": 4, "batch": 16, "check_every": 10**6}))
    trainer.fit(2, progress=False)
    panel = Panel(trainer, threads=1)
    try:
        panel.view._receive(panel.view, {"kind": "set", "name": "detach", "value": True}, None)
        found = panel.trainer.submit(lambda trainer: trainer.session.measurements[-1]).result(20)  # commands are carried out in turn
        panel.tick()
        light = next(light for light in panel.view.checks if light["name"] == "gradient")
        assert (found.step, light["level"], light["step"]) == (2, "bad", 2) and "nll does not reach trunk" in light["sentence"]
    finally: panel.close()


def test_a_preset_is_one_choice_in_a_call_and_in_the_panel() -> None:
    from latentlab.facade import make_run
    from latentlab.families.csvae.experiment import FAMILY
    from latentlab.panels.panel import Panel

    run = make_run("csvae", {"preset": "sprites", "side": 32})
    assert (run.side, run.model.trunk, run.model.decoder, run.model.bounded) == (32, "moments", "separable", False)
    with pytest.raises(ValueError, match="`preset` of csvae must be one of default, sprites, pendulum, flow, journal: got 'sprite'"):
        make_run("csvae", {"preset": "sprite"})
    small = {"data.images": 200, "features": 16, "width": 4, "batch": 16}
    family = replace(FAMILY, presets={"a": {"side": 16, "model.decoder": "separable", "beta": 0.5}, "b": {"trunk": "moments"}})
    trainer = Trainer(CSVAERun().replace(small | {"side": 32}))
    panel = Panel(trainer, family=family, threads=1)
    said: list = []
    panel.view.send = lambda content, buffers=None: said.append(content)
    choose = lambda name: panel.view._receive(panel.view, {"kind": "set", "name": "preset", "value": name}, None)
    control = lambda: next(c for c in panel.view.schema if c["name"] == "preset")

    def force(name: str) -> None:  # commands are carried out in turn
        choose(name)
        panel.trainer.submit(lambda trainer: None).result(60)
        panel.tick()

    try:
        panel.tick()
        assert panel.view.values["preset"] == "default" and control()["choices"] == ["default", "a", "b"]
        force("a")
        model = trainer.run.model
        assert (trainer.run.side, model.decoder, model.beta, model.features) == (16, "separable", 0.5, 16) and panel.view.values["preset"] == "a"
        force("b")  # what only another preset says goes back to its default
        assert (trainer.run.side, trainer.run.model.decoder, trainer.run.model.trunk) == (32, "convolutions", "moments")
        trainer.set(beta=2.0)
        panel.tick()
        assert panel.view.values["preset"] == "own" and control()["choices"] == ["default", "a", "b", "own"]
        choose("c")
        assert "`preset` must be one of default, a, b: got 'c'" in said[-1]["sentence"]
    finally: panel.close()


def silence(*tensors: torch.Tensor) -> None:
    with torch.no_grad():
        for tensor in tensors: tensor.zero_()


def cut_edge(model: CSVAE) -> None:
    at = [model.place("y"), model.place("x")]
    silence(model.prior.first.weight[at[0], at[1] * max(model.sizes):(at[1] + 1) * max(model.sizes)])


def leak(model: CSVAE) -> None: model.prior.first.mask.fill_(True), model.prior.child.fill_(True)


def ignore(model: CSVAE, name: str = "scale") -> None:
    start = model.place(name) * max(model.sizes)
    silence(model.decoder.dense.first[0].weight[:, start:start + max(model.sizes)])


def kill(model: CSVAE, name: str = "y") -> None: silence(*(p[model.place(name)] for p in model.evidence.head.parameters()))


def spoil(model: CSVAE) -> None:
    with torch.no_grad(): model.decoder.dense.first[0].weight[0, 0] = torch.nan


def drift(model: CSVAE) -> None:
    with torch.no_grad(): model.evidence.head.bias[model.place("y"), 0] += 6


def twins(model: CSVAE) -> None:  # every concept says what the first one says
    with torch.no_grad():
        for p in (*model.evidence.parameters(), ): p[:] = p[:1].clone()


def deaden(model: CSVAE) -> None:
    model.evidence.act = torch.nn.ReLU()
    with torch.no_grad(): model.evidence.first.bias.fill_(-100)


def fill(model: CSVAE) -> None:  # tanh units that are full, as on the pendulum after twenty steps
    model.evidence.act = torch.nn.Tanh()
    with torch.no_grad(): model.evidence.first.bias.fill_(200)


PLANTED = {"edges": cut_edge, "graph": leak, "decoder": ignore, "concepts": kill, "numbers": spoil, "prior": drift, "rank": twins,
           "hidden units": deaden, "picture": lambda model: silence(*model.decoder.parameters())}


@pytest.fixture(scope="module")
def trained() -> Trainer:
    "A small model whose three concepts speak and are heard."
    run = CSVAERun().replace({"data.name": "sprites", "data.images": 1000, "side": 16, "features": 32, "width": 8, "batch": 32, "sizes": (1,),
                              "graph": Graph(("x", "scale", "y"), (("x", "y"),)), "check_every": 10**6})
    jaxtyping.config.update("jaxtyping_disable", True)
    try: return Trainer(run).fit(250, progress=False)
    finally: jaxtyping.config.update("jaxtyping_disable", False)


def test_full_units_are_dead_too(trained: Trainer) -> None:
    model, images = copy.deepcopy(trained.model), trained.setup.held_out[:64]
    with torch.no_grad():
        assert dead_units(model, images, model.infer(images).z) < 0.3
        fill(model)
        assert dead_units(model, images, model.infer(images).z) > 0.5


@pytest.mark.parametrize(("name", "activation", "level"), [("pendulum", "tanh", "warn"), ("pendulum", "silu", "ok"), ("sprites", "tanh", "ok")])
def test_tanh_on_a_white_ground_is_warned_of_before_the_first_step(name: str, activation: str, level: str) -> None:
    fitting = concepts_for(name) | {"data.name": name, "data.images": 300, "side": 16, "features": 64, "seed": 3}
    setup = CSVAERun().replace(fitting | {"activation": activation, "merge": "precision"}).build()
    probe = probe_concepts(setup.model, setup.held_out[:64], generator=stream(3))
    verdict = next(v for v in (check(probe) for check in CSVAE_CHECKS) if v.name == "features")
    assert (verdict.level, probe.step) == (level, 0) and ("silu" in verdict.remedy) == (level == "warn")


def test_an_error_is_held_against_an_earlier_one_on_one_ruler() -> None:
    "A learnt scale makes a nat worth another number of grey values at every step, and a step measured twice is one step."
    model = small({"likelihood": "gaussian_learnt"}, factors=())
    with torch.no_grad(): probe = replace(probe_concepts(model, IMAGES, generator=stream(3)), step=2000, explained=0.8)
    said = lambda **changes: {v.name: v.level for v in (check(replace(probe, **changes)) for check in (schedule_shock, swinging_error))}
    falling = tuple((500 + 100 * k, 0.2 + 0.6 * 0.7**k) for k in range(15))  # of the variance, ever less is missing
    assert said(history=falling, nll=-700.0, mean_nll=-690.0) == {"schedule": "ok", "swing": "ok"}  # in nats nothing was gained
    assert said(history=tuple(pair for pair in falling for _ in range(2))) == {"schedule": "ok", "swing": "ok"}
    assert said(history=falling, explained=0.3)["schedule"] == "bad"
    waves = tuple((500 + 100 * k, 0.3 + 0.2 * math.sin(k * math.pi / 3)) for k in range(15))
    assert said(history=waves)["swing"] != "ok"


def test_what_is_read_without_the_place_does_not_know_it() -> None:
    model = small({"graph": Graph(("x", "shape")), "sizes": (2,), "trunk": "moments", "centred": ("shape",)})
    with torch.no_grad(): model.evidence.head.weight.normal_(generator=stream(4))
    bar = torch.zeros(2, 1, 16, 16)
    bar[0, 0, 4:7, 3:8], bar[1, 0, 8:11, 7:12] = 1, 1  # the same bar, moved by whole pixels
    here, there = model.read_evidence(bar).loc
    assert torch.allclose(here[1], there[1], atol=1e-4) and not torch.allclose(here[0], there[0], atol=1e-2)
    for changes in ({"centred": ("z",), "trunk": "moments"}, {"centred": ("x",)}, {"centred": ("x",), "trunk": "moments", "wiring": "chained",
                                                                                    "activation": "tanh"}):
        with pytest.raises(ValueError, match="`centred` must name concepts of the graph"): small({"graph": Graph(("x", "shape"))} | changes)


@pytest.mark.usefixtures("unchecked")  # derivatives are slow under the type checks
@pytest.mark.parametrize("name", PLANTED)
def test_a_failure_planted_in_a_trained_model_is_named(trained: Trainer, name: str) -> None:
    model, images = copy.deepcopy(trained.model), trained.setup.held_out[:64]
    grade = lambda: next(v.level for v in (check(replace(probe_concepts(model, images, generator=stream(3)), step=2000))
                                           for check in CSVAE_CHECKS) if v.name == name)
    before = grade()
    PLANTED[name](model)
    assert ("ok", "warn", "bad").index(before) < ("ok", "warn", "bad").index(grade())


def test_a_set_that_is_no_text_is_refused_by_the_settings_and_not_before():
    run = CSVAERun()
    for value in ([], {}, None, 3): assert CSVAEDisplay().match(run, "data.name", value) == {"data.name": value}
