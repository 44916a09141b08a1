"""The page of the built-in agent says what the code does."""

from agent_gateway.backend.embedded import layers
from dev.generate_layer_tables import PAGE, written


def test_the_tables_are_those_of_the_models() -> None:
    page = PAGE.read_text("utf-8")
    assert written(page) == page
    for name in [part.__name__ for part in _parts() if part.model_fields]:
        assert f"<!-- keys: {name} -->" in page


def _parts() -> list[type[layers.LayerPart]]:
    return layers.LayerPart.__subclasses__()
