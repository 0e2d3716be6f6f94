"""Writes what is derived: dashboard bodies into template.yaml, the table of device permissions into README.md.

`python cloud/generate.py` writes, `--check` fails when something is out of date. Sources: cloud/dashboards/*.json and
the policies of TokenExchangeRole and TokenExchangeAccess in the template.
"""

import json
import re
import sys
from pathlib import Path

import yaml

CLOUD = Path(__file__).resolve().parent
BODY = re.compile(r"(      DashboardBody: !Sub \| # dashboards/(\w+)\.json\n)(?:        .*\n)+")
TABLE = re.compile(r"(<!-- permissions -->\n).*(<!-- /permissions -->)", re.DOTALL)


class Loader(yaml.CSafeLoader):
    """Reads `!Sub x` and its like as plain x."""


Loader.add_multi_constructor("!", lambda loader, _, node: _plain(loader, node))


def _plain(loader: yaml.CSafeLoader, node: yaml.Node) -> object:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_mapping(node, deep=True) if isinstance(node, yaml.MappingNode) else None


def template(text: str) -> str:
    """The template with the dashboards of today."""

    def body(match: re.Match[str]) -> str:
        dashboard = json.loads((CLOUD / "dashboards" / f"{match[2]}.json").read_text(encoding="utf-8"))
        widgets = ",\n          ".join(json.dumps(widget) for widget in dashboard.pop("widgets"))
        rest = json.dumps(dashboard).removesuffix("}")
        return f'{match[1]}        {rest}, "widgets": [\n          {widgets}\n        ]}}\n'

    return BODY.sub(body, text)


def readme(text: str, template_text: str) -> str:
    """The README with a row per statement of the token-exchange role."""
    resources = yaml.load(template_text, Loader)["Resources"]  # noqa: S506  (a SafeLoader)
    nucleus = {"PolicyName": "nucleus", **resources["TokenExchangeAccess"]["Properties"]}
    rows = ["| component | may | on |", "| --- | --- | --- |"]
    for policy in (nucleus, *resources["TokenExchangeRole"]["Properties"]["Policies"]):
        for statement in policy["PolicyDocument"]["Statement"]:
            actions, places = _list(statement["Action"]), _list(statement["Resource"])
            short = [
                re.sub(r"^arn:\$\{AWS::Partition\}:(\w+):(\$\{AWS::Region\}:\$\{AWS::AccountId\}:|::)", r"\1:", place)
                for place in places
            ]
            cells = (policy["PolicyName"], ", ".join(f"`{a}`" for a in actions), ", ".join(f"`{r}`" for r in short))
            rows.append("| " + " | ".join(cells) + " |")
    table = "\n".join(rows)
    return TABLE.sub(lambda match: f"{match[1]}{table}\n{match[2]}", text)


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def main() -> int:
    """Exit code 1 when --check found something out of date."""
    old = {name: (CLOUD / name).read_text(encoding="utf-8") for name in ("template.yaml", "README.md")}
    fresh = {"template.yaml": template(old["template.yaml"])}
    fresh["README.md"] = readme(old["README.md"], fresh["template.yaml"])
    stale = [name for name in old if old[name] != fresh[name]]
    if "--check" in sys.argv:
        for name in stale:
            sys.stderr.write(f"cloud/{name} is out of date: run python cloud/generate.py\n")
        return 1 if stale else 0
    for name in stale:
        (CLOUD / name).write_text(fresh[name], encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
