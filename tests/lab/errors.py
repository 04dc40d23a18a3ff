"""The one error the lab raises on purpose."""


class LabError(Exception):
    """The lab cannot do what was asked; the message is one line that says why."""
