"""Everything that exists to test the platform; nothing outside of it imports it."""
