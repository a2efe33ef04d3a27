"""Applications in Node, and what they and aiohttp must agree on."""

import pytest

pytest.register_assert_rewrite("tests.interop.node.cases")
