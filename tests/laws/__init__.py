"""One battery of laws over every model that the registry knows."""
