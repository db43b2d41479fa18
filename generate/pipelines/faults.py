"""Classify an error of a pipeline: is the command at fault, the worker, or nobody?

fault_of(error)            # COMMAND, PASSING, MEMORY, COMPILER, DEVICE or UNCLEAR

At start-up COMMAND ends the run's wait at once, the others by contrast between workers
(generate/server/submissions.py); PASSING is tried again in this process.
"""

from collections.abc import Iterator

from common.command_line import UserError
from generate.dataset.disk import PASSING as PASSING_ERRNOS

COMMAND = "command"  # no worker can do it
PASSING = "passing"  # hub or disk, for the moment
MEMORY = "memory"  # it does not fit on the device
DEVICE = "device"  # CUDA or cuDNN
COMPILER = "compiler"  # torch.compile cannot do it: generated without it
UNCLEAR = "unclear"  # this worker's or the command's

# Names of classes along an error's chain of causes, since most of the libraries are not loaded.
OF_THE_COMMAND = {
    "GatedRepoError",
    "RepositoryNotFoundError",
    "RevisionNotFoundError",
    "EntryNotFoundError",
    "HFValidationError",
    "TypeError",
    "ValueError",
    "AttributeError",
    "NotImplementedError",
}
# Subclasses of the above that say nothing about the command.
NOT_OF_THE_COMMAND = {"UnicodeError", "LocalEntryNotFoundError"}
OUT_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "unable to find an engine",  # cuDNN's, where no algorithm's workspace fits
)
OF_THE_COMPILER = ("torch._dynamo", "torch._inductor", "torch._functorch", "torch.fx", "triton")
OF_THE_DEVICE = ("CUDA", "cuDNN", "CUBLAS", "CUDNN", "NCCL")
TOO_MANY_REQUESTS = 429
ADVICE = {
    MEMORY: "; --offload model, --quantize, a smaller --size or larger cards (--constraint)",
}


class CannotStart(UserError):
    """The pipeline cannot be loaded, or cannot generate its first batch. fault: see fault_of."""

    def __init__(self, text: str, fault: str) -> None:
        super().__init__(text + ADVICE.get(fault, ""))
        self.fault = UNCLEAR if fault == COMPILER else fault


def fault_of(error: BaseException) -> str:
    """What the error and its causes tell, the most certain first."""
    if isinstance(error, CannotStart):
        return error.fault
    chain = list(_causes(error))
    if any(_passes(one) for one in chain):
        return PASSING
    words = [str(one) for one in chain]
    memory = isinstance(error, MemoryError)
    if memory or any(part in word for word in words for part in OUT_OF_MEMORY):
        return MEMORY
    if any(type(one).__module__.startswith(OF_THE_COMPILER) for one in chain):
        return COMPILER
    if any(part in str(error) for part in OF_THE_DEVICE):
        return DEVICE
    if isinstance(error, UserError):
        return COMMAND
    names = {base.__name__ for one in chain for base in type(one).__mro__}
    return COMMAND if names & OF_THE_COMMAND and not names & NOT_OF_THE_COMMAND else UNCLEAR


def _passes(error: BaseException) -> bool:
    """A disk that may answer later; a hub that is slow, or has an error or requests too many."""
    if type(error).__name__ == "BadPeer":  # common.web's, which loads a client of HTTP
        return True
    if isinstance(error, OSError) and error.errno in PASSING_ERRNOS:
        return True
    status = getattr(getattr(error, "response", None), "status_code", None)
    return isinstance(status, int) and (status == TOO_MANY_REQUESTS or status >= 500)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, what raised it, and so on; at most 20."""
    current: BaseException | None = error
    for _ in range(20):
        if current is None:
            return
        yield current
        current = current.__cause__ or current.__context__
