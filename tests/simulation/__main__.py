"""``python -m tests.simulation``: see :mod:`tests.simulation.running`."""

import sys

from tests.simulation.running import main

sys.exit(main(sys.argv[1:]))
