"""Deployments under way and those that were: one after the other, each with its outcome."""

import asyncio

from localdev.core.deployment import Deployer
from localdev.core.deployment_model import Deployment, Request
from localdev.core.state import CoreState

MAX_DEPLOYMENTS = 100


class Deployments:
    def __init__(self, core: CoreState, deployer: Deployer) -> None:
        self._core, self._deployer = core, deployer
        self.all: dict[str, Deployment] = {}
        self._under_way: dict[str, asyncio.Task[None]] = {}

    def deploy(self, request: Request) -> Deployment:
        """Begins a deployment; it is queued behind those under way."""
        deployment = Deployment(request)
        self.all[deployment.id] = deployment
        for forgotten in list(self.all)[:-MAX_DEPLOYMENTS]:
            del self.all[forgotten]
        task = asyncio.create_task(self._deployer.run(deployment), name=f"deployment {deployment.id}")
        self._under_way[deployment.id] = task
        task.add_done_callback(lambda task: self._ended(deployment.id, task))
        return deployment

    async def give_up(self, deployment_id: str) -> None:
        """Ends a deployment that is queued or under way; what it has changed stays."""
        task = self._under_way.get(deployment_id)
        if task:
            task.cancel()
            await asyncio.wait({task})

    def cancel(self, deployment_id: str) -> bool:
        """Asks a deployment to end; false if it has."""
        deployment = self.all[deployment_id]
        if deployment.ended:
            return False
        deployment.status = "CANCELED"
        self._under_way[deployment_id].cancel()
        return True

    def _ended(self, deployment_id: str, task: asyncio.Task[None]) -> None:
        del self._under_way[deployment_id]
        failure = None if task.cancelled() else task.exception()
        if failure:
            self._core.logs.system("ERROR", "deployment-failed", f"the core failed: {failure!r}")

    async def give_up_all(self) -> None:
        for deployment_id in list(self._under_way):
            await self.give_up(deployment_id)
