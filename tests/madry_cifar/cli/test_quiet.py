"""What an import of TensorFlow does to the garbage collector."""

import gc

import pytest

from madry_cifar.cli.quiet import without_garbage


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_is_not_looked_for_and_then_as_before(enabled):
    (gc.enable if enabled else gc.disable)()
    try:
        with without_garbage():
            assert not gc.isenabled()
        assert gc.isenabled() == enabled
        with pytest.raises(ImportError), without_garbage():
            raise ImportError
        assert gc.isenabled() == enabled
    finally:
        gc.enable()
