"""Which files are tests, and whose, by their names."""

from __future__ import annotations

import pytest

from codespar.codeindex.conventions import belongs, is_test


@pytest.mark.parametrize(
    "path",
    [
        "test_limits.py", "tests/unit/limits.py", "pkg/limits_test.go", "web/cart.test.ts", "web/cart.spec.tsx", "web/__tests__/cart.js",
        "src/test/java/acme/Helper.java", "src/LimiterTest.java", "src/LimiterTests.cs", "src/LimiterIT.java", "src/TestLimiter.java",
        "spec/limiter_spec.rb", "tests/limits.rs", "src/limits/tests.rs", "conftest.py", "limits/tests.py", "Acme.Tests/Limiter.cs",
        "app/src/androidTest/Limiter.kt", "e2e/login.ts", "test/limits.bats", "cypress/login.cy.ts",
    ],
)  # fmt: skip
def test_the_names_tests_go_by_are_known(path: str) -> None:
    assert is_test(path)


@pytest.mark.parametrize(
    "path",
    [
        "src/latest.py", "contest/rank.py", "attest.go", "src/testimonials.ts", "inspector.rb", "protest/march.py", "src/Contest.java",
        "special/offer.py", "docs/test.md", "tests/data/big.json", "spec/openapi.yaml", "greatest/hit.ts", "src/AUDIT.java",
    ],
)  # fmt: skip
def test_words_that_only_contain_test_and_files_that_are_no_code_are_not_tests(path: str) -> None:
    assert not is_test(path)


@pytest.mark.parametrize(
    ("test", "path"),
    [
        ("tests/unit/test_limits.py", "src/acme/limits.py"),
        ("tests/test_acme_limits.py", "src/acme/limits.py"),
        ("pkg/limits_test.go", "pkg/limits.go"),
        ("web/cart.test.tsx", "web/cart.ts"),
        ("web/__tests__/cart.js", "web/cart.jsx"),
        ("src/test/java/acme/LimiterTest.java", "src/main/java/acme/Limiter.java"),
        ("spec/acme/rate_limiter_spec.rb", "lib/acme/rate_limiter.rb"),
        ("tests/limits.rs", "src/limits.rs"),
        ("tests/test_limits.py", "src/limits/__init__.py"),
        ("web/__tests__/cart.ts", "web/cart/index.ts"),
        ("tests/LimiterTest.php", "src/Limiter.php"),
        ("test/limiter_test.cc", "src/limiter.h"),
    ],
)
def test_a_test_belongs_to_the_file_it_is_named_after(test: str, path: str) -> None:
    assert is_test(test) and belongs(test, path) >= 0.4


def test_the_nearer_of_two_alike_is_surer_and_another_language_is_none() -> None:
    near, far = (
        belongs("tests/shop/test_utils.py", "shop/utils.py"),
        belongs("tests/shop/test_utils.py", "bank/utils.py"),
    )
    assert near > far > 0
    assert belongs("tests/test_limits.py", "src/limits.go") == 0
    assert belongs("tests/test_other.py", "src/limits.py") == 0
    assert (
        0
        < belongs("tests/test_limits_edges.py", "src/limits.py")
        < belongs("tests/test_limits.py", "src/limits.py")
    )
    assert belongs("limits/tests.py", "limits/models.py") > 0 == belongs("other/tests.py", "limits/models.py")
