"""``python -m worker.cli`` is ``presend``."""

from worker.cli import main

main(prog_name="presend")
