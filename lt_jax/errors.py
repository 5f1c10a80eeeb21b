"""The errors that are told in one sentence, and quoting others in it."""


class InputError(ValueError):
    """Raised for bad input: one sentence that names the value and what was expected.

    Launch scripts print the sentence and exit with a non-zero status, also for `StorageError` and
    `NonFiniteError`; everything else that is raised is a defect of the library and keeps
    its traceback.
    """


class StorageError(RuntimeError):
    """Raised when something could not be saved, as on a full disk: one sentence.

    What was saved before is intact, and the same call goes on from it.
    """


class NonFiniteError(RuntimeError):
    """The loss or the weights became infinite or NaN; what was saved before is still there."""


def first_line(error: BaseException) -> str:
    r"""What an exception says, as far as it fits into a sentence.

    Example:
      >>> first_line(OSError("no disk\nmore")), first_line(KeyError())
      ('no disk', 'KeyError')
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0]
