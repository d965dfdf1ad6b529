"""The two errors a user may meet, their input is wrong or something failed though it was right; and the warning."""


class InputError(ValueError):
    """The user's input is wrong; the message names the place and what to do (exit code 2)."""


class InputWarning(UserWarning):
    """Something in the user's input is passed over; the message names it and what follows from that."""


class RunError(RuntimeError):
    """A run failed though its input was right, such as a full disk or a torn file (exit code 1)."""
