"""The once-a-second readings of /proc and the cgroup files, as rows of the bundle.

samplers = start("node-a")
...
samplers.stop()
for name, table in samplers.tables().items(): writer.write(name, table)
"""

from kubetape.capture.samplers.sampler import TABLE_NAMES, Samplers, start

__all__ = ["TABLE_NAMES", "Samplers", "start"]
