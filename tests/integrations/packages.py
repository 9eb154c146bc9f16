"""The packages that `make integrations` installs. Tests that need one are skipped without it."""

import importlib
import os

import pytest


def needs(*modules: str) -> None:
    """Skip the tests of a file if one of the modules is not installed; in CI this is an error.

    A test's file calls it before it imports them.
    """
    for module in modules:
        if os.environ.get("CI_INTEGRATIONS") == "1":
            importlib.import_module(module)
        pytest.importorskip(module, reason=f"needs {module}: make integrations", exc_type=ImportError)
