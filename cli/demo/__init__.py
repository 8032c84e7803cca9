"""`portcullis demo`: the whole story on the embedded defaults, through the commands and routes that a user has."""
