"""The network that takes pixels gives the same answers as the network that takes normalised images."""

import torch

from mnist_amp.data.normalization import Normalization
from mnist_amp.inference.pixel_network import PixelNetwork
from mnist_amp.networks import CNN, SimpleNN

OF_CHANNELS = Normalization([0.4, 0.5, 0.6], [0.2, 0.3, 0.1])


def test_normalises_in_float32() -> None:
    """In float32 the logits are the same to the last bit; in half precision the images are rounded after it."""
    torch.manual_seed(0)
    model, images = CNN(8, in_channels=3).eval(), torch.randint(0, 256, (5, 3, 32, 32), dtype=torch.uint8)
    assert torch.equal(PixelNetwork(model, OF_CHANNELS)(images), model(OF_CHANNELS(images)))
    for dtype in (torch.float16, torch.bfloat16):
        wanted = CNN(8, in_channels=3).eval()
        wanted.load_state_dict(model.state_dict())
        logits = wanted.to(dtype)(OF_CHANNELS(images).to(dtype)).float()
        assert torch.equal(PixelNetwork(model, OF_CHANNELS, dtype)(images), logits)


def test_the_model_does_not_change() -> None:
    model = CNN(8).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    PixelNetwork(model, dtype=torch.float16)(torch.zeros(5, 1, 28, 28, dtype=torch.uint8))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.requires_grad and weight.dtype == torch.float32 for weight in model.parameters())
    assert model.training


def test_computes_in_its_dtype() -> None:
    torch.manual_seed(0)
    model, images = SimpleNN(16), torch.randint(0, 256, (50, 1, 28, 28), dtype=torch.uint8)
    wanted = model(Normalization()(images))
    for dtype, tolerance in ((torch.float32, 0), (torch.float16, 1e-2), (torch.bfloat16, 5e-2)):
        network = PixelNetwork(model, dtype=dtype)
        logits = network(images)
        assert logits.dtype == torch.float32
        assert {weight.dtype for weight in network.parameters()} == {dtype}
        torch.testing.assert_close(logits, wanted, rtol=0, atol=tolerance)
