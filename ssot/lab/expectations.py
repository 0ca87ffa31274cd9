"""What a check expects to go wrong: an error that is raised."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from ssot.lab.checks import Unknown

__all__ = ["Raised", "raises"]

E = TypeVar("E", bound=Exception)


class Raised(Generic[E]):
    """What was raised, and was expected."""

    value: E


@contextlib.contextmanager
def raises(kind: type[E], told: Callable[[E, Raised[E]], None]) -> Iterator[Raised[E]]:
    """Expect an error of this kind; ``told`` hears of it, with what holds it.

    None, or one of another kind, is an :class:`AssertionError`; :class:`Unknown` passes through.
    """
    raised: Raised[E] = Raised()
    try:
        yield raised
    except kind as error:
        raised.value = error
        told(error, raised)
    except Unknown:
        raise
    except Exception as error:
        what = f"{type(error).__name__} was raised, not {kind.__name__}: {error}"
        raise AssertionError(what) from error
    else:
        raise AssertionError(f"no {kind.__name__} was raised")
