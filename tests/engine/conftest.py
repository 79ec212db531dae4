"""One tiny model for each architecture, and the plainest of them."""

import pytest
from architectures import ARCHITECTURES, tiny


@pytest.fixture(params=ARCHITECTURES)
def tiny_model(request):
    return tiny(request.param)


@pytest.fixture
def llama():
    return tiny("llama")
