"""Read captures as batches of frames. This package does not depend on rules or flows."""

from sgfast.base.lazy import on_demand

# Imported on demand, so that commands that read no capture do not wait for the modules that read one.
__getattr__, __dir__ = on_demand(__name__)
