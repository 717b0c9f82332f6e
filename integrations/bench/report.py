"""What one run of the bench found, as a file and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from hero_plugin.integrations.bench.cases import Model, Setting
from hero_plugin.integrations.bench.measure import Measurement
from hero_plugin.integrations.bench.sizes import Sizes
from hero_plugin.integrations.errors import UserError
from hero_plugin.integrations.files import write_json

PARTS = {"setting": Setting, "model": Model, "sizes": Sizes}


@dataclass(frozen=True)
class Report:
    """Measurements that were made together."""

    command: str
    conditions: str
    """On what, and how, in words."""
    measurements: list[Measurement]

    def write(self, path: Path, **more: Any) -> None:
        """As JSON, beside whatever else is to be noted."""
        measurements = [asdict(each) for each in self.measurements]
        content = {"command": self.command, "conditions": self.conditions, **more, "measurements": measurements}
        write_json(path, content)

    @classmethod
    def read(cls, path: Path) -> Report:
        """What :meth:`write` wrote.

        Raises:
            UserError: the file cannot be read, or is not one of these.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            measurements = [_measurement(each) for each in content["measurements"]]
            return cls(content["command"], content["conditions"], measurements)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UserError(f"{path} holds no measurements of hero-plugin bench --json ({error!r})") from error


def _measurement(plain: Mapping[str, Any]) -> Measurement:
    parts = {name: kind(**plain[name]) for name, kind in PARTS.items()}
    return Measurement(**{each.name: parts.get(each.name, plain[each.name]) for each in fields(Measurement)})
