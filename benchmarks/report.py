"""What a benchmark prints: its tables as Markdown and, if asked, all of it as one JSON object on the last line."""

import json
from typing import Any

from madry_cifar.cli.settings import Settings, option


class Benchmark(Settings):
    """What every benchmark is told."""

    repeats: int = option(5, "rounds after the first, of an iteration each", minimum=1)
    json: bool = option(False, "print one JSON object on the last line")


def show(result: dict[str, Any], as_json: bool) -> None:
    """Prints the tables of a result, and the result itself in JSON."""
    print(markdown(result))
    if as_json:
        print(json.dumps(result))


def markdown(result: dict[str, Any]) -> str:
    """The tables of a result: what it was measured with, and its lists of rows, each under its name."""
    parts = [result.get("note"), statement(result)]
    for name, rows in tables(result).items():
        parts += [f"**{name.replace('_', ' ').capitalize()}**", table(rows)]
    return "\n\n".join(part for part in parts if part)


def tables(result: dict[str, Any]) -> dict[str, list[dict]]:
    """The lists of rows in a result, by name."""
    return {name: value for name, value in result.items() if _is_rows(value)}


def _is_rows(value):
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def statement(result: dict[str, Any]) -> str:
    """On what and with which settings a result was measured, in a sentence or two; empty where it does not say."""
    machine, settings = result.get("machine"), result.get("settings", {})
    parts = [", ".join(f"{name} {cell(value)}" for name, value in settings.items() if value not in (None, "", False))]
    if machine:
        devices = [f"{machine['cores']} cores of {machine['cpu']}", *machine["gpus"]]
        versions = (f"{name} {version}" for name, version in machine["versions"].items() if version)
        parts.append(f"measured on {machine['date']} with {', '.join([*devices, *versions])}")
    return "; ".join(filter(None, parts))


def table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table of rows that name their columns; numbers are at the right."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    numeric = [all(_is_number(row.get(name)) for row in rows) for name in names]
    lines = [[name.replace("_", " ") for name in names], ["--:" if number else "---" for number in numeric]]
    lines += [[cell(row.get(name)) for name in names] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _is_number(value):
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def cell(value: Any) -> str:
    """A value as people read it; None, which stands for nothing measured, is a dash."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(cell, value))
    if isinstance(value, float) and abs(value) < 1e4:
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
    return f"{value:,.0f}" if isinstance(value, float) else str(value)
