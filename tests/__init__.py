"""Tests."""

import pytest

# Its asserts then say what differs, as those in a test module do.
pytest.register_assert_rewrite("tests.store_contract")
