"""Lines of Lightning, torch and Matplotlib that are not printed."""

import os
import subprocess
import sys

PROGRAM = "from mnist_amp.cli.silenced import silence_imports; silence_imports(); import matplotlib.pyplot"


def test_matplotlib_without_a_folder_of_its_own() -> None:
    nowhere = os.path.join(os.devnull, "x")  # noqa: PTH118  # below a file
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("MPL", "XDG"))}
    env = {**variables, "HOME": nowhere, "MPLCONFIGDIR": nowhere}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=env, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    loud = subprocess.run(
        [sys.executable, "-c", PROGRAM.rpartition(";")[2].strip()], env=env, capture_output=True, text=True, check=True
    )
    assert nowhere in loud.stderr  # or the test proves nothing
