"""Servers that play a chat platform on loopback, strictly: what the real one would refuse, they refuse."""
