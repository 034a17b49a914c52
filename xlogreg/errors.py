"""What can go wrong, as named errors: each message is one sentence that says what, where and what to do.

Everything a user can cause derives from `XlogregError`; the command line prints its message and exits with 2.
The second base of each class lets callers who never heard of xlogreg catch what they expect.
"""


class XlogregError(Exception):
    """Base of every error that xlogreg raises on purpose."""


class InputError(XlogregError, ValueError):
    """An argument, an option or the content of a file is not usable."""


class FileError(XlogregError, OSError):
    """A file or folder cannot be read or written."""


class DeviceError(XlogregError, RuntimeError):
    """A device was asked for and is missing, or arrays of different devices were mixed."""


class DownloadError(XlogregError, OSError):
    """Data could not be fetched, or what came does not verify."""


class RisingCostWarning(UserWarning):
    """The cost of a training rose: its learning rate is too large. A warning, since the model is there all the same."""


class ConvergenceWarning(UserWarning):
    """A solver that goes to the optimum ended before it arrived there."""


class DivergenceError(XlogregError, ArithmeticError):
    """Training left the range in which the cost is finite.

    Attributes
    ----------
    iteration : int
        Number of the iteration (0 is the first) whose cost is not finite.
    learning_rate : float
        The rate of the model that diverged.
    """

    def __init__(self, message: str, iteration: int, learning_rate: float) -> None:
        super().__init__(message)
        self.iteration = iteration
        self.learning_rate = learning_rate
