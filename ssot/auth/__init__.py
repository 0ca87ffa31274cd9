"""The auth service, and the verification of its tokens."""
