"""Five single sources of truth of a multi-user agent platform."""
