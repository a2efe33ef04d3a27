"""What Express and NestJS do, case by case; the page in docs/reference is made from these tests."""

import pytest

pytest.register_assert_rewrite("tests.parity.helpers")
