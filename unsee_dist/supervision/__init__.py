"""What watches a run: signals that ask it to stop, ranks that hang or die, and where each of them stands.

signals.py    stop at the next step, on all ranks
watchdog.py   a rank that hangs or dies ends the job, with its name
phases.py     the step and phase of the main thread, for the watchdog, the bench and the kill tests
"""
