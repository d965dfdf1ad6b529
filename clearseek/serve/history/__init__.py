"""Conversations as the page has them: trees of messages, kept on this machine or only as long as the server lives."""
