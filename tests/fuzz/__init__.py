"""Octets at random, for as long as one likes: `make fuzz SECONDS=600`."""
