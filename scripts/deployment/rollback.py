"""Going back: to which earlier deployment, and with what so that devices are as they were under it.

Devices keep configuration that later deployments merged and the earlier one does not mention. So what was merged or
reset since is reset, and everything that deployments had merged by then is merged again.
"""

from collections.abc import Callable, Sequence
from typing import Any

from deployment.configuration import Update, differing, outermost, resettable
from deployment.revision import Components, Revision

Contents = dict[str, Any]


def contents(revisions: Sequence[Revision]) -> list[Contents]:
    """What devices have after each of `revisions`, oldest first: components, and all that was merged into them."""
    states: list[Contents] = []
    for revision in revisions:
        before = states[-1] if states else {}
        states.append(
            {
                name: _component(before.get(name, {}).get("configuration", {}), specification)
                for name, specification in revision.components.items()
            }
        )
    return states


def _component(values: dict[str, Any], specification: dict[str, Any]) -> dict[str, Any]:
    """A device forgets the configuration of a component that is removed, so `values` are those just before."""
    after = Update(values).then(Update.of(specification)).merge
    return {key: value for key, value in specification.items() if key != "configurationUpdate"} | {
        "configuration": after
    }


def earlier(states: Sequence[Contents], good: Callable[[int], bool]) -> int | None:
    """The newest of `states`, oldest first, to go back to from the last one: `good`, and never given up before.

    Where a deployment has the contents of an older one, someone went back, and gave up all between the two.
    """
    index = states.index(states[-1]) - 1
    while index >= 0 and not good(index):
        index = states.index(states[index]) - 1
    return index if index >= 0 else None


def restored(revisions: Sequence[Revision], index: int) -> Components:
    """Components for a deployment after which devices are as they were after `revisions[index]`, oldest first."""
    wanted, since = contents(revisions[: index + 1])[-1], revisions[index + 1 :]
    result = {}
    for name, specification in revisions[index].components.items():
        values = wanted[name]["configuration"]
        pointers = list(Update.of(specification).reset)
        for revision in since:
            update = Update.of(revision.components.get(name, {}))
            pointers += update.reset
            pointers += (resettable(path) for path in differing(update.merge, values))
        result[name] = Update(values, outermost(pointers)).within(specification)
    return result
