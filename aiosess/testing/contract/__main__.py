"""Print the contract as a page of the reference."""

import sys

from aiosess.testing.contract.document import as_markdown

sys.stdout.write(as_markdown())
