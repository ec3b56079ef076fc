"""The errors sgfast raises on purpose: one line each, naming file, place, cause and remedy."""


class SgfastError(Exception):
    """Base of every error sgfast raises on purpose; ``str(error)`` is the one line to show."""


class ArgumentError(SgfastError, ValueError):
    """An argument of a public call that has no such value, or does not go together with another one."""


class ArgumentTypeError(SgfastError, TypeError):
    """An argument of a public call that is of another type than it has to be."""


class PolicyError(SgfastError):
    """A policy document that cannot be used (SPEC 2, 7.1, 8.5); exit status 2."""


class AmbiguousAddress(PolicyError):
    """Two VPCs that a capture may show own one address (SPEC 7.1); exit status 2 for a replay."""


class CaptureError(SgfastError):
    """A capture that cannot be opened or is no capture we read (SPEC 10.5); exit status 2."""


class ReadingError(SgfastError):
    """What is to be read of captures cannot be: a wrong filter, an end before the start; exit status 2."""


class NoCapture(CaptureError):
    """A file that is no capture at all; in a directory of captures it is left out."""


class OutputError(SgfastError):
    """An output that cannot be written (SPEC 10.5); exit status 2."""


class SnapshotError(SgfastError):
    """A snapshot that cannot be read, or does not belong to this replay; exit status 2."""


class FlowLogError(SgfastError):
    """A flow log that cannot be read or is none (SPEC 10.5); exit status 2."""


class ClusterError(SgfastError):
    """A cluster or its storage that does not do what a replay on it needs; exit status 2."""
