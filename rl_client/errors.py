"""Exceptions of training and evaluation. Those of the HTTP client are in `rl_client.api`.

TrainingError
├── ConfigError              a settings file with faults; all of them are listed
├── DataError                a prompt or demonstration that cannot be used; names the file and the line
├── ModelFilesError          a model directory is missing, incomplete, of the wrong class, or refused
├── DecodeError              a tokenizer that gives no offsets
├── CheckpointError          a checkpoint is missing, damaged, or belongs to another run
├── RunFolderError           the output folder holds another run, or another process works in it
├── OutputError              something could not be written: the disk is full, or the folder may not be written
├── VersionChangedError      a reward model is not the version that the run pinned
├── TooManyFailedScoresError more responses without a score than the settings allow
├── OtherProcessError        another of the processes that train together failed; the message holds its error
├── LostProcessError         another of them is gone; the run goes on from its last checkpoint
├── WorkerError              a worker on another machine stopped; the message holds its error
├── NotFiniteError           a loss or a gradient became NaN or infinite
└── KlLimitError             the policy left the reference further, more often, than the settings allow
"""


class TrainingError(Exception):
    """A run cannot start or go on; the message says what to do about it."""


class ConfigError(TrainingError):
    """A settings file has faults; `faults` lists every one with its path in the file."""

    def __init__(self, source: str, faults: list[str]) -> None:
        super().__init__("\n".join([f"{source}: {len(faults)} fault(s)", *(f"  - {fault}" for fault in faults)]))
        self.source = source
        self.faults = faults


class DataError(TrainingError):
    """A prompt or demonstration cannot be used."""


class ModelFilesError(TrainingError):
    """A model directory is missing, incomplete, of the wrong class, or refused."""


class DecodeError(TrainingError):
    """A tokenizer gives no offsets of sampled tokens."""


class CheckpointError(TrainingError):
    """A checkpoint is missing, damaged, or belongs to another run."""


class RunFolderError(TrainingError):
    """The output folder holds another run, or another process works in it; nothing was written."""


class OutputError(TrainingError):
    """Something could not be written: the disk is full, or the folder may not be written."""


class VersionChangedError(TrainingError):
    """A reward model is not the version that the run pinned."""


class TooManyFailedScoresError(TrainingError):
    """More responses went without a score than the settings allow."""


class OtherProcessError(TrainingError):
    """Another of the processes that train together failed; the message holds its error."""


class LostProcessError(TrainingError):
    """Another of the processes that train together is gone: nothing can be said of this step."""


class WorkerError(TrainingError):
    """A worker on another machine stopped; the message holds its error."""


class NotFiniteError(TrainingError):
    """A loss or a gradient became NaN or infinite."""


class KlLimitError(TrainingError):
    """The policy left the reference further, more often, than the settings allow."""
