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
        features = found.get("features")
        names = features if isinstance(features, list) else []
        told = [_name(names, at) for at, is_odd in enumerate(odd) if is_odd is True]
        return f"anomaly: {', '.join(told[:SHOWN])}" if told else "as usual"
    if _number(found.get("value")):
        measured = found.get("measured")
        return f"{found['value']:.4g}" + (f", measured {measured:.4g}" if _number(measured) else "")
    return ""


def _one(found: dict[str, Any]) -> str:
    score = found.get("score")
    percent = f"{round(100 * score)} %" if isinstance(score, int | float) and 0 <= score <= 1 else ""
    return f"{str(found.get('label', '?'))[:MAX_LABEL]} {percent}".strip()


def _name(names: list[Any], at: int) -> str:
    return str(names[at])[:MAX_LABEL] if at < len(names) else f"feature {at + 1}"


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
