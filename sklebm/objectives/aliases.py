"""Settings with a second name: ``n_gibbs_steps`` is an alias of ``n_steps`` for block Gibbs."""

from __future__ import annotations

import functools
import operator
from typing import Any, TypeVar

Part = TypeVar("Part", bound=type)


def with_aliases(cls: Part) -> Part:
    """Let a dataclass accept, and expose, the names in its ``aliases``.

    An alias is not a field: it is neither compared nor printed nor stored, so equal settings give
    equal objects whichever name was used. Giving both names is an error.
    """
    aliases: dict[str, str] = cls.aliases  # type: ignore[attr-defined]
    plain = cls.__init__  # type: ignore[misc]

    @functools.wraps(plain)
    def init(self: Any, *args: Any, **settings: Any) -> None:
        given = {alias: name for alias, name in aliases.items() if alias in settings}
        for alias, name in given.items():
            if name in settings:
                raise TypeError(f"{alias} is another name of {name}: give one of them.")
            settings[name] = settings.pop(alias)
        try:
            plain(self, *args, **settings)
        except ValueError as error:
            message = str(error)
            for alias, name in given.items():  # report errors under the name that was given
                message = message.replace(f" {name}=", f" {alias}=")
            raise ValueError(message) from None

    cls.__init__ = init  # type: ignore[misc]
    for alias, name in aliases.items():
        setattr(cls, alias, property(operator.attrgetter(name), doc=f"``{name}``."))
    return cls
