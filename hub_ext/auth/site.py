"""Who is who on a hub whose sign-in is the site's own: people are written down for the quota as they come in.

Somebody whom the identity document names is who it says. Everybody else is a member of the pools, and has the roles,
that share a name with their JupyterHub groups; whom the site made an administrator is an operator.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable
from typing import Any

from jupyterhub.utils import maybe_future
from tornado.web import HTTPError

from hub_ext.auth.claims import Identity
from hub_ext.auth.policy import person_of
from hub_ext.auth.roles import OPERATOR, ROLES, STUDENT
from hub_ext.core.errors import HubError
from hub_ext.core.people import Person

AuthModel = dict[str, Any]
Hook = Callable[[Any, Any, AuthModel], Awaitable[AuthModel]]


def person_at(
    identity: Identity, pools: Collection[str], name: str, groups: Iterable[str], *, admin: bool
) -> Person:
    """The person as the quota sees them. Without a group that is a pool they are in, and may start nothing."""
    named = person_of(identity, name)
    if named is not None:
        return named
    groups = tuple(dict.fromkeys(groups))
    # That somebody runs the centre is for the site to say, not for a group that happens to be called so.
    roles = {group for group in groups if group in ROLES and group != OPERATOR} or {STUDENT}
    if admin:
        roles.add(OPERATOR)
    return Person(name, tuple(group for group in groups if group in pools), frozenset(roles))


def writing_down(
    identity: Identity,
    pools: Callable[[], Awaitable[Collection[str]]],
    write_down: Callable[[Person], Awaitable[None]],
    before: Any = None,
) -> Hook:
    """A `post_auth_hook` that writes down whoever signs in, after the site's own hook `before`.

    Nobody gets in whom it could not write down: they would be refused everything later, without a reason.
    """

    async def hook(authenticator: Any, handler: Any, model: AuthModel) -> AuthModel:
        if before is not None:
            model = await maybe_future(before(authenticator, handler, model))
        user = handler.find_user(model["name"])
        groups = model.get("groups")
        if groups is None:  # the sign-in says nothing of groups: those that the hub knows
            groups = [group.name for group in user.groups] if user else []
        admin = model.get("admin")
        if admin is None:  # nor of this: it stays as it is
            admin = bool(user and user.admin)
        try:
            await write_down(person_at(identity, await pools(), model["name"], groups, admin=admin))
        except HubError as error:
            raise HTTPError(
                503, "The records of the centre cannot be written now; try again soon."
            ) from error
        return model

    return hook
