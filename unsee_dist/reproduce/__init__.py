"""Experiments that anybody can repeat: a claim, the runs that test it, their scores, and an honest sentence.

    experiment -> units -> runner (the ordinary training, side by side on Ray) -> scoring -> results -> page, results.json

experiment.py   what an experiment is: a question, arms (a preset and settings), seeds, claims, charts
experiments.py  the experiments
starts.py       the encoders that arms begin with
units.py        an arm under a seed: its settings, its folder, whether it is complete
vision.py       an experiment whose runs are those of docs/examples/vision.py
runner.py       each unit trained or continued by `unsee train` in a process of its own
train_peer.py   a peer trained by sentence-transformers, into a folder that is read as a run's
scoring.py      the tasks' scores of the trained encoders, and of the one they began with
results.py      what all units have: scores by arm and seed, as results.json has them
intervals.py    differences over seeds and over pairs
sentences.py    what they say, and what they do not
page.py         the page: sentences, table, figures
command.py      `unsee reproduce`
"""
