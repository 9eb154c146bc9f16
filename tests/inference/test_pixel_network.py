"""The network that takes pixels gives the same answers as the network that takes normalised images."""

import torch

from mnist_amp.data.normalization import normalize
from mnist_amp.inference.pixel_network import PixelNetwork, fold_normalization
from mnist_amp.networks.simple_nn import SimpleNN


def example() -> tuple[SimpleNN, torch.Tensor]:
    torch.manual_seed(0)
    return SimpleNN(16), torch.randint(0, 256, (50, 28, 28), dtype=torch.uint8)


def test_the_first_layer_includes_the_normalisation() -> None:
    model, images = example()
    wanted = model.double()(normalize(images).double())
    torch.testing.assert_close(
        fold_normalization(model)(images.double()), wanted, rtol=0, atol=1e-6
    )  # normalize is in float32


def test_folding_does_not_change_the_model() -> None:
    model, _ = example()
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    fold_normalization(model)
    assert all(torch.equal(weight, before[name]) for name, weight in model.state_dict().items())
    assert all(weight.requires_grad for weight in model.parameters())


def test_computes_in_its_dtype() -> None:
    model, images = example()
    wanted = model(normalize(images))
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float16, 1e-2), (torch.bfloat16, 5e-2)):
        network = PixelNetwork(model, dtype)
        logits = network(images)
        assert logits.dtype == torch.float32
        assert {weight.dtype for weight in network.parameters()} == {dtype}
        torch.testing.assert_close(logits, wanted, rtol=0, atol=tolerance)
