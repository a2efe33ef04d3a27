"""Hostile input, made at random: cookies, headers, records, replies of back-ends, options."""
