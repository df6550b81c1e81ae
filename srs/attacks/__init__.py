"""Attacks on a DEQ and on its smoothed classifier: what is set, the one PGD, and a suite run on certified images."""
