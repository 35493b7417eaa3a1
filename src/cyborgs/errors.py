"""The one base of errors that are the input's fault: their message is for the user, without a traceback."""


class UserError(ValueError):
    """What was wrong, with which file or field, and what to do."""


class NotFiniteError(UserError):
    """Numbers that should be finite are NaN or infinite."""
