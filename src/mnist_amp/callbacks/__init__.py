"""What a run does beside training; one callback a file."""

from mnist_amp.callbacks.banner import Banner
from mnist_amp.callbacks.checkpoint import RunCheckpoint
from mnist_amp.callbacks.evaluation import EvaluationReport
from mnist_amp.callbacks.logged_rows import LoggedRows
from mnist_amp.callbacks.loss_scale import LossScaleMonitor
from mnist_amp.callbacks.picture_predictions import PicturePredictions
from mnist_amp.callbacks.predictions import PredictionWriter
from mnist_amp.callbacks.progress import ProgressBar
from mnist_amp.callbacks.random_states import RandomStates
from mnist_amp.callbacks.run_folder import RunFolder
from mnist_amp.callbacks.summary import FitSummary
from mnist_amp.callbacks.terminate_on_nan import TerminateOnNaN

__all__ = [
    "Banner",
    "EvaluationReport",
    "FitSummary",
    "LoggedRows",
    "LossScaleMonitor",
    "PicturePredictions",
    "PredictionWriter",
    "ProgressBar",
    "RandomStates",
    "RunCheckpoint",
    "RunFolder",
    "TerminateOnNaN",
]
