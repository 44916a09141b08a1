"""The fold: run events in, turn events out, and how a turn ends."""
