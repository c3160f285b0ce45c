"""The web service and its page. Extra `web`."""
