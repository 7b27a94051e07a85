"""Supervision of a run: signals that stop it, ranks that hang or die, and the phase each rank is in.

signals.py    stop at the next step, on all ranks
watchdog.py   a rank that hangs or dies ends the job; the message names the rank
ownership.py one command at a time trains in a run's folder
phases.py     the step and phase of the main thread, for the watchdog, the bench and the kill tests
"""
