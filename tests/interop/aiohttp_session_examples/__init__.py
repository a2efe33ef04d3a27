"""What the documentation of aiohttp-session shows, as modules that import aiohttp_session.

The tests run each as it is, and with the name of the imported package replaced.
"""
