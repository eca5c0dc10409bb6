"""Namespaces: `client.namespaces` of a FloClient, `grid.namespaces` in process."""

from __future__ import annotations

from flo.client.transport import Operations
from flo.client.types import NamespaceInfo
from flo.wire import calls


class Namespaces(Operations):
    """Namespaces come into being with the first write; the names of one never meet those of another."""

    __slots__ = ()

    async def create(self, name: str) -> bool:
        """Makes a namespace; False when it was there already."""
        return (await self._call(calls.NAMESPACE_CREATE, self._ns(None), calls.NamespaceName(name))).created

    async def delete(self, name: str, *, force: bool = False) -> None:
        """Deletes a namespace. Raises ConflictError when something is in it, unless `force` is set."""
        await self._call(calls.NAMESPACE_DELETE, self._ns(None), calls.NamespaceDelete(name, force))

    async def exists(self, name: str) -> bool:
        """Whether there is such a namespace."""
        return (await self._call(calls.NAMESPACE_EXISTS, self._ns(None), calls.NamespaceName(name))).exists

    async def info(self, name: str) -> NamespaceInfo:
        """The namespace in numbers. Raises NotFoundError."""
        told = await self._call(calls.NAMESPACE_INFO, self._ns(None), calls.NamespaceName(name))
        return NamespaceInfo(told.name, told.keys, told.queues, told.streams)

    # last, for below it `list` means this method in annotations
    async def list(self) -> list[str]:
        """The names of all namespaces."""
        return (await self._call(calls.NAMESPACE_LIST, self._ns(None), calls.NoArguments())).namespaces
