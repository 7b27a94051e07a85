"""Bytes on disk: files and folders that appear whole or not at all, remote paths, tables, small typed records.

atomic.py    one file, one folder, replaced in one move
owner.py     one command at a time writes into a folder
process.py   whether another process of this machine has ended
trees.py     JSON of unknown origin, within bounds; a digest among the values
records.py   small JSON files of one typed value, with a format version and a digest
remote.py    paths that are URLs
contents.py  which files of a folder are ours
room.py      whether a disk has room
hub.py       which errors of the Hugging Face libraries are no bug of ours
tables.py    rows of csv and tsv
"""
