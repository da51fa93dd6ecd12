"""Stand-ins that a process of its own can import."""
