"""What OWASP ASVS 5.0 and NIST SP 800-63B-4 ask of sessions, and the tests that answer."""
