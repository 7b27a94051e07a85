"""How good an encoder is: `unsee evaluate | compare`, and the evaluations during training.

models.py           the argument MODEL, opened; half_written.py: whether its folder is whole
tasks.py            the tasks of a command, and the scores of a model on them; on_ray.py: side by side on a cluster
mteb_suite.py       an encoder on a task of mteb; mteb_tasks.py: published and local tasks; mteb_data.py, local_tasks.py,
                    task_files.py: their data
scores.py           scores on disk
evaluate.py, score_table.py                      `unsee evaluate`
compare.py, comparison.py, comparison_plot.py, intervals.py   `unsee compare`
development.py      the evaluations of a run, on all its ranks; sts_files.py, question_files.py, tables.py: its sets
"""
