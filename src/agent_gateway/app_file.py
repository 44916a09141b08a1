"""App files on an operator's desk: written from an app, and checked against the environment at hand."""

import re
from collections.abc import Mapping

import yaml

from agent_gateway.app_config import AppConfig, template_strings
from agent_gateway.template import Placeholder, parse

_RARE_BREAKS = re.compile("[\x85\u2028\u2029]")


def write_app_file(slug: str, config: AppConfig) -> str:
    """The YAML of an app, from which `load_app_file` makes the same app again."""
    data = {"slug": slug, **config.model_dump(mode="json")}
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def unset_variables(config: AppConfig, environ: Mapping[str, str]) -> list[str]:
    """The names of the environment variables that the app needs and that are not set."""
    needed = {
        part.name
        for _, text in template_strings(config)
        for part in parse(text)
        if isinstance(part, Placeholder) and part.source == "env"
    }
    return sorted(needed - environ.keys())


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as people do, and everything where it stands."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # The rarer line breaks come back as themselves only from where they are escaped.
    style = '"' if _RARE_BREAKS.search(text) else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
