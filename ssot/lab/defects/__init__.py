"""Seeded defects: ways in which such systems have really failed, as small edits of the source."""
