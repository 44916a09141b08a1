from tests.support import properties  # noqa: F401 - it sets how many examples the tests here try
