"""What stands between sessions and their storage: retries, time limits, a budget, a breaker."""

__all__: list[str] = []
