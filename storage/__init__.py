"""Database sessions and migrations. Knows nothing of what a row means: each room declares its tables in its `tables.py`."""
