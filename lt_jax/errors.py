"""The one error that means "what you gave cannot be used", and quoting others in its sentence."""


class InputError(ValueError):
    """Raised for bad input: one sentence that names the value and what was expected.

    Launch scripts print the sentence and exit with a non-zero status; everything else that is
    raised is a defect of the library and keeps its traceback.
    """


def first_line(error: BaseException) -> str:
    r"""What an exception says, as far as it fits into a sentence.

    Example:
      >>> first_line(OSError("no disk\nmore")), first_line(KeyError())
      ('no disk', 'KeyError')
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0]
