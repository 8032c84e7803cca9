"""The wall clock, as the `Clock` port."""

from __future__ import annotations

import time


class SystemClock:
    def now_unix(self) -> int:
        return int(time.time())
