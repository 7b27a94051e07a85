"""Runs as people look at them: `unsee runs`, and the page of `unsee report`.

run_files.py    what a run's folder says of the run: settings, starts, scores, state
listing.py      `unsee runs`: the runs below a folder
encoders.py     the encoder before and after training; pairs.py, sentences.py: what the page shows of both: gold pairs; neighbours, a map
headline.py     better than before, than TF-IDF, than others; facts.py: tables, history, next commands
curves.py       which numbers of metrics.jsonl become a plot; plots.py: a plot as SVG in the page's colours
of_runs.py      which section has what; page.py: the page, page.html.jinja, filled, masked and escaped
"""
