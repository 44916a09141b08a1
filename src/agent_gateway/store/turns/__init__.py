"""The rows of turns: who may begin, own, end and read them."""
