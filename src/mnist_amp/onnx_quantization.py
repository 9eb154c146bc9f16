"""Static quantization of ONNX files to int8 by onnxruntime, for `compare` and for `export`.

A QuantizeLinear and a DequantizeLinear stand before each product, and onnxruntime computes the product of the two in
int8. The ranges of the activations are the smallest and the largest values for some training inputs; weights have a
range per channel.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
CALIBRATION_INPUTS = 500


def quantize(floats: Path, integers: Path, name: str, batches: Iterable[Any], *, reduce_range: bool) -> None:
    """Write the int8 file of an ONNX file.

    Args:
        floats: the ONNX file, in float32.
        integers: the file to write, in the same folder.
        name: of the input.
        batches: arrays of training inputs, to calibrate the ranges with.
        reduce_range: whether weights have 7 bits. On CPUs without the instructions VNNI, sums of products of 8 bits
            can overflow.
    """
    from onnxruntime.quantization import QuantFormat, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = floats.with_name("prepared.onnx")  # with batch normalisation folded into convolutions
    quant_pre_process(floats, prepared, skip_symbolic_shape=True)
    quantize_static(
        prepared,
        integers,
        _reader(name, batches),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        reduce_range=reduce_range,
    )


def _reader(name: str, batches: Iterable[Any]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches = iter(batches)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {name: batch}

    return Reader()


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the warnings and log lines of the exporter and of the quantization from being printed."""
    import onnxruntime

    disabled = logging.root.manager.disable
    with warnings.catch_warnings(action="ignore"), contextlib.redirect_stdout(io.StringIO()):
        logging.disable(logging.WARNING)
        onnxruntime.set_default_logger_severity(3)  # errors
        try:
            yield
        finally:
            logging.disable(disabled)
            onnxruntime.set_default_logger_severity(2)  # its default: warnings
