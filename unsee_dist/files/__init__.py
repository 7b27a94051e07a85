"""Bytes on disk: files and folders that appear whole or not at all, remote paths, tables.

atomic.py    one file, one folder, replaced in one move
remote.py    paths that are URLs
tables.py    rows of csv and tsv
"""
