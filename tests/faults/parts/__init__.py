"""The parts of ``make faults``; each module is one story, told at any size."""
