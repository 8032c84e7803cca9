"""The `portcullis` command: reads what people type, calls a room or starts a door, prints. No logic."""
