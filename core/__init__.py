"""The nouns and ports that every room shares. Imports none of ours and does no I/O."""
