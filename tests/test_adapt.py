"A VAE of somebody else, as the public libraries write theirs, from a state_dict to its bound, its checks and its sliders."
import copy
import types

import pytest
import torch
from torch import nn

import latentlab as ll
from latentlab.latents.adapt import feeds, judge_latents, latent_table, traversal
from latentlab.latents.evaluate import evaluate


class Record(dict):
    "A dictionary with attributes, as pythae and transformers return."
    __getattr__ = dict.__getitem__


class Encoder(nn.Module):
    def __init__(self, latents):
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Dropout(0.5))
        self.mean, self.spread = nn.Linear(64, latents), nn.Linear(64, latents)

    def forward(self, x):
        h = self.body(x)
        return Record(embedding=self.mean(h), log_covariance=self.spread(h))


class Decoder(nn.Module):
    def __init__(self, latents):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(latents, 64), nn.ReLU(), nn.Linear(64, 784), nn.Sigmoid())

    def forward(self, z): return Record(reconstruction=self.body(z).view(-1, 1, 28, 28))


class Theirs(nn.Module):
    "A VAE as pythae names its parts."

    def __init__(self, latents=6):
        super().__init__()
        self.encoder, self.decoder = Encoder(latents), Decoder(latents)


@pytest.fixture(scope="module")
def pictures(): return ll.images("fashion-mnist", "train", limit=512).float()


@pytest.fixture(scope="module")
def state(pictures):
    "Weights after 200 steps."
    torch.manual_seed(0)
    model = Theirs()
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(200):
        x = pictures[torch.randperm(len(pictures))[:64]]
        q = model.encoder(x)
        z = q.embedding + (0.5 * q.log_covariance).exp() * torch.randn_like(q.embedding)
        kl = 0.5 * (q.embedding.square() + q.log_covariance.exp() - 1 - q.log_covariance).sum(-1)
        loss = (200 * (model.decoder(z).reconstruction - x).square().mean((1, 2, 3)) + 0.1 * kl).mean()
        optimiser.zero_grad(), loss.backward(), optimiser.step()
    return copy.deepcopy(model.state_dict())


@pytest.fixture
def theirs(state):
    model = Theirs()
    model.load_state_dict(state)
    return model  # in training mode, as a state_dict leaves it


def test_from_a_state_dict_to_a_bound(theirs, pictures, capsys):
    vae = ll.adapt(theirs, pictures)
    assert not theirs.training, "dropout is off"
    assert "6 latents; decode gives pixels; gaussian, scale" in capsys.readouterr().out
    assert vae.understood.own > 5 * vae.understood.chance and vae.understood.error < 0.25
    figures = ll.evaluate(vae, pictures[:64], samples=5)
    assert figures["iw"] >= figures["elbo"] and figures["kl_1"] > 0.5
    table = latent_table(vae, pictures)
    assert len(table) == 6 and table["kl"].is_monotonic_decreasing and table["moves"].iloc[0] > table["moves"].iloc[-1]
    assert len(judge_latents(vae, pictures[:128])) >= 8


def test_the_same_model_by_every_door_has_the_same_bound(theirs, pictures):
    theirs.eval()
    pair = lambda x: (theirs.encoder(x).embedding, theirs.encoder(x).log_covariance)
    doors = (dict(model=theirs), dict(encode=theirs.encoder, decode=theirs.decoder), dict(encode=pair, decode=theirs.decoder, spread="log_var"),
             dict(model=types.SimpleNamespace(encode=pair, decode=lambda z: theirs.decoder(z).reconstruction), spread="log_var"))
    bounds = [evaluate(ll.adapt(images=pictures, quiet=True, **door), pictures[:32], samples=3,
                       generator=torch.Generator().manual_seed(0)).elbo for door in doors]
    for bound in bounds[1:]: torch.testing.assert_close(bound, bounds[0])


def test_dropout_of_a_function_is_refused(theirs, pictures):
    "A bare function cannot be put into evaluation mode: the proof finds what is left on."
    theirs.train()
    with pytest.raises(ValueError, match="must say the same of an image twice"):
        ll.adapt(encode=lambda x: theirs.encoder(x), decode=lambda z: theirs.decoder(z), images=pictures, quiet=True)


def test_images_in_another_range_are_said(theirs, pictures):
    "Trained on [0, 1], given negatives of the images: the reconstruction is of something else."
    vae = ll.adapt(theirs, 1 - pictures, quiet=True)
    fit = ll.adapt(theirs, pictures, quiet=True)
    assert vae.understood.own < fit.understood.own and vae.understood.error > 2 * fit.understood.error


def test_a_colour_model_with_maps_of_latents():
    "Latents as 2 x 4 x 4: rows here, maps for their decoder."
    torch.manual_seed(0)
    down, up = nn.Conv2d(3, 4, 2, 2), nn.ConvTranspose2d(2, 3, 2, 2)
    encode = lambda x: down(x).chunk(2, 1)
    vae = ll.adapt(encode=encode, decode=lambda z: up(z).sigmoid(), images=torch.rand(20, 3, 8, 8), spread="log_var", quiet=True)
    assert vae.code == (2, 4, 4) and vae.understood.latents == 32
    assert traversal(vae, torch.rand(2, 3, 8, 8), 31).shape == (2, 7, 3, 8, 8)
    x = torch.rand(2, 3, 8, 8)
    place = feeds(vae, x, 5)[0]  # latent 5: channel 0, row 1, column 1 -> pixels 2:4, 2:4
    assert set(map(tuple, place.nonzero().tolist())) == {(r, c) for r in (2, 3) for c in (2, 3)}


def test_sliders_follow_a_model_of_somebody_else(theirs, pictures):
    vae = ll.adapt(theirs, pictures, quiet=True)
    view = ll.sliders(vae, pictures[:3], top=3)
    before = view.picture.value
    first = view.latents[0]
    view.sliders[first].value = 2.5
    assert view.picture.value != before and f"z{first} +2.50" in view.words.value
    view.back.click()
    assert view.picture.value == before
