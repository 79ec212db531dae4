"""Probes learn what is in the states and nothing else; they stop early, repeat and are saved."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pytest_llmprobe.errors import CasesError, SettingsError
from pytest_llmprobe.whitebox import length_probe_training
from pytest_llmprobe.whitebox.length_probe import LengthProbe, Network, ProbeConfig
from pytest_llmprobe.whitebox.length_probe_training import train_probe

N, WIDTH = 1200, 16
TRAIN, STOP, TEST = np.arange(800), np.arange(800, 1000), np.arange(1000, N)
RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 60, N)
NOISE = RNG.normal(size=(N, WIDTH)).astype(np.float32)
LINEAR = NOISE * 0.5 + 100
LINEAR[:, 3] += LABELS / 3
LINEAR[:, 5] = 7  # the same in every row
CURVED = NOISE.copy()
CURVED[:, :2] = np.abs(LABELS / 30 - 1)[:, None] * [1, -1] + RNG.normal(size=(N, 2)) * 0.01
CURVED[:, 2] = np.sign(LABELS - 30)
BINS = (1, 2, 4, 8, 16, 32)
QUICK = {"hidden": 32, "max_epochs": 40, "batch_size": 32}


def trained(values, kind, labels=LABELS, **options):
    config = ProbeConfig(kind, **{**QUICK, **options})
    return train_probe(values.__getitem__, labels, TRAIN, STOP, config)


def error(probe, values, labels=LABELS):
    return np.abs(probe.predict(values[TEST]) - labels[TEST]).mean()


CONSTANT = np.abs(np.median(LABELS[TRAIN]) - LABELS[TEST]).mean()


@pytest.mark.parametrize("bins", [(), BINS])
@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_probe_finds_a_length_that_the_states_hold(kind, bins):
    probe = trained(LINEAR, kind, bins=bins)
    most = 0.4 if bins else 0.15  # the mean of a bin is all that bins can say
    assert error(probe, LINEAR) < most * CONSTANT


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_a_probe_finds_nothing_in_noise_or_under_shuffled_labels(kind):
    shuffled = LABELS.copy()
    shuffled[:1000] = np.random.default_rng(1).permutation(LABELS[:1000])
    for values, labels in ((NOISE, LABELS), (LINEAR, shuffled)):
        assert error(trained(values, kind, labels), values) > 0.9 * CONSTANT


def test_an_mlp_may_have_several_hidden_layers_and_is_read_again(tmp_path):
    probe = trained(CURVED, "mlp", hidden=(24, 12), dropout=0.0)
    assert error(probe, CURVED) < 0.3 * CONSTANT
    probe.save(tmp_path)
    again = LengthProbe.load(tmp_path)
    assert again.config == probe.config
    assert again.config.hidden == (24, 12)
    shapes = {name: tuple(w.shape) for name, w in load_file(tmp_path / "probe.safetensors").items()}
    assert [shapes[f"hidden.{n}.weight"] for n in (0, 3)] == [(24, 16), (12, 24)]
    assert again.predict(CURVED[TEST]).tolist() == probe.predict(CURVED[TEST]).tolist()


def test_only_an_mlp_finds_what_is_bent():
    assert error(trained(CURVED, "mlp"), CURVED) < 0.2 * CONSTANT
    assert error(trained(CURVED, "linear"), CURVED) > 0.3 * CONSTANT


def test_a_linear_probe_is_softplus_of_a_dot_product_on_standardised_states():
    probe = trained(LINEAR, "linear")
    network = probe._network
    weight, bias = network.head.weight[0].double(), network.head.bias.double()
    mean, scale = network.mean.double(), network.scale.double()
    scores = (torch.from_numpy(LINEAR[TEST]).double() - mean) / scale @ weight + bias
    assert probe.predict(LINEAR[TEST]) == pytest.approx(scores.exp().log1p().detach(), abs=1e-4)
    assert network.mean.numpy() == pytest.approx(LINEAR[TRAIN].mean(0), rel=1e-5)
    assert np.delete(network.scale.numpy(), 5) == pytest.approx(
        np.delete(LINEAR[TRAIN].std(0), 5), rel=1e-4
    )
    assert network.scale[5] == 1  # what never changes is not blown up


def test_the_loss_is_the_mean_square_of_differences_of_logarithms():
    network = Network(ProbeConfig(), WIDTH)
    values, labels = torch.from_numpy(NOISE[:9]), torch.from_numpy(LABELS[:9]).float()
    found = network.loss(values, labels, torch.tensor(()))
    p, y = network(values).detach().numpy(), LABELS[:9]
    assert found.item() == pytest.approx(np.square(np.log(1 + p) - np.log(1 + y)).sum(), rel=1e-5)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_training_stops_early_and_keeps_the_best_weights(monkeypatch, kind):
    mean_loss = length_probe_training._mean_loss
    losses, kept = [], []

    def watched(network, *rest):
        losses.append(mean_loss(network, *rest))
        kept.append({name: value.clone() for name, value in network.state_dict().items()})
        return losses[-1]

    monkeypatch.setattr(length_probe_training, "_mean_loss", watched)
    probe = trained(NOISE, kind, patience=3, max_epochs=60)
    best = int(np.argmin(losses))
    assert len(losses) == best + 4 < 60
    for name, value in probe._network.state_dict().items():
        assert torch.equal(value, kept[best][name])


def test_equal_seeds_give_equal_probes_and_leave_the_global_generator_alone():
    before = torch.random.get_rng_state()
    first, again, other = (
        trained(LINEAR, "mlp", seed=seed, max_epochs=3).predict(LINEAR[TEST]) for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_states_read_from_disk_train_the_same_probe(monkeypatch, kind):
    expected = trained(LINEAR, kind, max_epochs=3).predict(LINEAR[TEST])
    monkeypatch.setattr(length_probe_training, "HELD_BYTES", 0)
    monkeypatch.setattr(length_probe_training, "READ", 100)
    largest = 0

    def read(rows):
        nonlocal largest
        largest = max(largest, len(rows))
        return LINEAR[rows]

    config = ProbeConfig(kind, **QUICK | {"max_epochs": 3, "batch_size": 64})
    probe = train_probe(read, LABELS, TRAIN, STOP, config)
    assert largest == 100
    if kind == "linear":
        assert probe.predict(LINEAR[TEST]) == pytest.approx(expected, rel=0.02, abs=0.2)


def test_bins_predict_the_mean_of_their_training_labels():
    probe = trained(LINEAR, "linear", bins=BINS)
    predicted = probe.predict(LINEAR[TEST])
    centres = probe._network.centres.numpy()
    inside = LABELS[TRAIN][(LABELS[TRAIN] >= 16) & (LABELS[TRAIN] < 32)]
    assert centres[0] == 0
    assert centres[5] == pytest.approx(inside.mean(), rel=1e-5)
    assert predicted.min() >= 0
    assert predicted.max() <= centres[-1]


@pytest.mark.parametrize("bins", [(), BINS])
@pytest.mark.parametrize("kind", ["linear", "mlp"])
def test_what_is_saved_is_what_is_loaded(tmp_path, kind, bins):
    probe = trained(LINEAR, kind, bins=bins, max_epochs=2)
    probe.origin["name"] = "made up"
    probe.save(tmp_path / "probe")
    names = sorted(path.name for path in (tmp_path / "probe").iterdir())
    assert names == ["probe.json", "probe.safetensors"]
    loaded = LengthProbe.load(tmp_path / "probe")
    assert loaded.config == probe.config
    assert loaded.origin == {"name": "made up"}
    assert np.array_equal(loaded.predict(LINEAR), probe.predict(LINEAR))


def rewrite(change):
    def damage(folder):
        path = folder / "probe.json"
        description = json.loads(path.read_text())
        change(description)
        path.write_text(json.dumps(description))

    return damage


def lose_a_weight(folder):
    weights = load_file(folder / "probe.safetensors")
    del weights["head.weight"]
    save_file(weights, folder / "probe.safetensors")


def cut(name):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-9])


DAMAGE = {
    "no description": lambda folder: (folder / "probe.json").unlink(),
    "no weights": lambda folder: (folder / "probe.safetensors").unlink(),
    "cut description": cut("probe.json"),
    "cut weights": cut("probe.safetensors"),
    "lost weight": lose_a_weight,
    "unknown kind": rewrite(lambda d: d["config"].update(kind="deep")),
    "unknown field": rewrite(lambda d: d["config"].update(depth=3)),
    "other shape": rewrite(lambda d: d["config"].update(hidden=60_000)),
    "text for a number": rewrite(lambda d: d["config"].update(hidden="many")),
    "no config": rewrite(lambda d: d.pop("config")),
    "a list": lambda folder: (folder / "probe.json").write_text("[]"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_probe_is_an_error(tmp_path, kind):
    trained(LINEAR, "mlp", max_epochs=1).save(tmp_path)
    DAMAGE[kind](tmp_path)
    with pytest.raises(CasesError, match="probe"):
        LengthProbe.load(tmp_path)


def test_states_of_another_width_are_an_error():
    with pytest.raises(CasesError, match=r"shape \(3, 15\) do not fit a probe of \[n, 16\]"):
        trained(LINEAR, "linear", max_epochs=1).predict(LINEAR[:3, :15])


def test_no_rows_are_an_error():
    with pytest.raises(CasesError, match="0 to stop by"):
        train_probe(LINEAR.__getitem__, LABELS, TRAIN, STOP[:0], ProbeConfig())


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "deep"},
        {"bins": (0, 3)},
        {"bins": (4, 2)},
        {"dropout": 1.0},
        {"hidden": 0},
        {"hidden": (4, 0)},
        {"hidden": ()},
        {"learning_rate": 0.0},
        {"patience": 0},
    ],
    ids=str,
)
def test_an_impossible_config_is_an_error(options):
    with pytest.raises(SettingsError, match="it must be"):
        ProbeConfig(**options)
