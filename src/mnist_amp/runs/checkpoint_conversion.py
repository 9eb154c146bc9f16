"""Checkpoints of version 0.1, whose only network was SimpleNN and whose only data set was MNIST."""

from typing import Any


def convert(checkpoint: Any) -> None:
    """Change a checkpoint of version 0.1 to the present form; leave others as they are. Its content may be anything."""
    saved = checkpoint.get("hyper_parameters") if isinstance(checkpoint, dict) else None
    if not isinstance(saved, dict) or "network" in saved or "hidden_dim" not in saved:
        return
    saved["network"] = _simple_nn(saved.pop("hidden_dim"))
    saved["num_classes"], saved["image_shape"] = 10, (1, 28, 28)
    if "MNISTDataModule" in checkpoint:
        checkpoint["ClassificationDataModule"] = checkpoint.pop("MNISTDataModule")


def converted_settings(config: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a run in the present form."""
    model = dict(config["model"])
    if "hidden_dim" not in model:
        return config
    return {**config, "network": _simple_nn(model.pop("hidden_dim")), "model": model}


def _simple_nn(hidden_dim: Any) -> dict[str, Any]:
    return {"class_path": "mnist_amp.networks.SimpleNN", "init_args": {"hidden_dim": hidden_dim}}
