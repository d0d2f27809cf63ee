"""A real run under faults drawn from a seed, and an audit of what is left of it.

faults    what goes wrong and when: a pure function of a seed
links     what an edge's faults do to the messages that cross it
storm     the thread between the processes: carries the messages, sends the signals
watch     tells a run that hangs
paced     a task whose steps take their time, so that a run lasts as long as its faults
verdict   whether what is left adds up
run       all of it together
"""

from decent.chaos.run import Wanted, chaos, plan, prepared

__all__ = ["Wanted", "chaos", "plan", "prepared"]
