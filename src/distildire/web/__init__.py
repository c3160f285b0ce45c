"""The web service and its page (extra `web`)."""
