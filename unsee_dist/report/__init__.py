"""Runs as people look at them: `unsee runs`, and the page of `unsee report`.

run_files.py    what a run's folder says of the run: settings, starts, scores, state
listing.py      `unsee runs`: the runs below a folder
encoders.py     the encoder before and after training, and what the page shows of both: pairs, neighbours, a map
facts.py        the parts of the page that are words and tables: verdict, settings, environment, history, next commands
curves.py       which numbers of metrics.jsonl become a plot; plots.py: a plot as SVG in the page's colours
page.py         the page: page.html.jinja, filled, escaped and masked
"""
