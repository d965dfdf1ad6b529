"""The Hugging Face Hub, asked only when a user says so: what a repository holds, and its files with resume.

Our own small client on the standard library: it sends nothing but the request and, to the endpoint alone, the token.
"""
