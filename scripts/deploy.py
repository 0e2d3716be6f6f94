"""Publishes built components and deploys them to a thing group, keeping everything else that is deployed there.

  ./scripts/deploy --thing-group G [--component NAME[=VERSION] ...] [--config FILE] [--remove NAME] [--dry-run]
  ./scripts/deploy status --thing-group G
  ./scripts/deploy rollback --thing-group G [--to ID] [--dry-run]

Without --component every component in greengrass-build/ is deployed. A version that is not built here must be
published already. The changes are shown and confirmed first.
"""

import sys

from deployment import DeployError, actions, arguments
from deployment.aws import in_words
from deployment.screen import Screen

ACTIONS = {"deploy": actions.deploy, "status": actions.status, "rollback": actions.roll_back}


def main(given: list[str] | None = None) -> int:
    options, screen = arguments.parse(__doc__, given), Screen()
    try:
        with in_words():
            return ACTIONS[options.action](actions.Run(options, screen))
    except DeployError as error:
        screen.fail(str(error))
        return error.code
    except KeyboardInterrupt:
        screen.fail(f"stopped; to see what is deployed: ./scripts/deploy status --thing-group {options.thing_group}")
        return actions.INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
