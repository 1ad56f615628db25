"""How fast the pipeline is beside what it replaces, measured side by side in one run: `make bench`.

`classic` is the reference, written from its published description; `training`, `tokenizer`, `serving` and `stages`
measure, each in processes of their own that `workers` starts and asks in turn; `report` draws the conclusions.
"""
