"""The one error that means "what you gave cannot be used"."""


class InputError(ValueError):
    """Raised for bad input: one sentence that names the value and what was expected.

    Launch scripts print the sentence and exit with a non-zero status; everything else that is
    raised is a defect of the library and keeps its traceback.
    """
