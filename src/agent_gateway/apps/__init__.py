"""What an app is: its configuration, its file, its inputs and placeholders. Pure."""
