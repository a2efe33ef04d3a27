"""Counts what is lost, revived or shared when many requests use one session at once."""
