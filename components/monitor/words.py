"""One line about a result, as the page's words.js says it."""

from typing import Any

from edgeml.messages import InferenceResult

SHOWN, MAX_LABEL = 3, 60


def summary(result: InferenceResult) -> str:
    found: Any = result.results
    if result.error:
        return f"error: {result.error[:200]}"
    if isinstance(found, list):
        named = [one for one in found if isinstance(one, dict)]
        more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
        return ", ".join(_one(one) for one in named[:SHOWN]) + more if named else "nothing"
    if not isinstance(found, dict):
        return ""
    odd = found.get("anomalies")
    if isinstance(odd, list):
        told = [_odd(found, at) for at, is_odd in enumerate(odd) if is_odd is True]
        return f"anomaly: {', '.join(told[:SHOWN])}" if told else "as usual"
    value, measured = _figure(found.get("value")), _figure(found.get("measured"))
    return f"{value}, measured {measured}" if value and measured else value


def _one(found: dict[str, Any]) -> str:
    score = found.get("score")
    percent = f"{round(100 * score)} %" if isinstance(score, int | float) and 0 <= score <= 1 else ""
    return f"{str(found.get('label', '?'))[:MAX_LABEL]} {percent}".strip()


def _odd(found: dict[str, Any], at: int) -> str:
    """The name of the feature `at`, its value and its threshold, as far as they are told."""
    name, value, limit = (_at(found.get(key), at) for key in ("features", "values", "thresholds"))
    told = f"{name[:MAX_LABEL] if isinstance(name, str) and name else f'feature {at + 1}'} {_figure(value)}".strip()
    return f"{told} (threshold {_figure(limit)})" if _figure(limit) else told


def _at(items: object, at: int) -> object:
    return items[at] if isinstance(items, list) and at < len(items) else None


def _figure(value: object) -> str:
    """A number in words; nothing for what is none, or larger than any that can be measured."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
    return f"{value:.4g}" if is_number else ""
