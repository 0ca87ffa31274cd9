"""Faults, made at the socket and at the process; each heals itself."""
