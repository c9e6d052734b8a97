"""The doctor: looks at everything presend stands on, changes nothing, and says what to do.

::

    worker.cli.doctor ──> examine ──┬─> postgres   version, tables, clock, connections, promises of commits
                                    ├─> broker     connection; on RabbitMQ queues and exchange as they must be
                                    ├─> redis      connection, clock, what it forgets and when
                                    ├─> provider   key, balance, clock
                                    └─> machine    time zone, metrics port

Each examination returns findings (``finding``); one that cannot connect says so and looks no further.
"""

from __future__ import annotations

from worker.doctor.examination import examine
from worker.doctor.finding import Finding, State

__all__ = ["Finding", "State", "examine"]
