"""The words of the house: ids, turns, files, questions to humans, turn events. Pure data and rules."""
