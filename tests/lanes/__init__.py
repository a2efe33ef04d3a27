"""The two lanes of a request: random cases on both, and what a broken fast lane would do."""
