"""Arrays that grow, one entry per connection or per direction of one."""

from __future__ import annotations

import numpy as np

from kubetape.capture.pcap.packets import Ints


class Growing:
    """An int64 array that is as long as the largest index asked for; new entries hold `fill`."""

    def __init__(self, fill: int) -> None:
        self.fill = fill
        self.values: Ints = np.full(1024, fill, np.int64)

    def reserve(self, count: int) -> None:
        if count > len(self.values):
            bigger = np.full(max(count, 2 * len(self.values)), self.fill, np.int64)
            bigger[: len(self.values)] = self.values
            self.values = bigger
