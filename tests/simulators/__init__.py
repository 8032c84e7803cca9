"""The ports of `core/ports.py`, in memory, so that whole flows are tested without patching."""
