"""The papermill engine ``ssot``: what papermill calls.

papermill loads this module through its entry point while papermill itself is still being imported,
so nothing of papermill is imported here on top; :mod:`ssot.lab.execution` does the work.
"""

from __future__ import annotations

from typing import Any

from nbformat import NotebookNode

__all__ = ["Engine"]


class Engine:
    """Runs a notebook like papermill's own engine, and:

    * calls ``progress`` with :class:`~ssot.lab.progress.Started` and
      :class:`~ssot.lab.progress.Finished` for every code cell, in the
      thread that executes; without it, each check is a line beside papermill's progress bar
    * runs nothing more after a failed cell that is no check, the setup first of all
    * once the :class:`threading.Event` ``stop`` is set, kills the kernel at once, writes what had
      finished, and raises :class:`~ssot.lab.progress.Stopped`
    * with ``only``, ids of checks, leaves the cells of all other checks out
    * with ``shuffle``, a seed, runs the checks in an order drawn from it
    * with ``environment``, a mapping, gives the kernel these variables on top of its own
    * has the evidence of the checks written beside the output, as ``<output>.evidence.json``
    * writes a mask in the place of each parameter that is secret by its name, and of every secret
      of the environment and the parameters that a cell shows
    * with ``kernel_log``, a binary file, sends there what the kernel writes outside of cells

    All of these are keyword arguments of :func:`papermill.execute_notebook`.
    """

    @classmethod
    def execute_notebook(cls, nb: NotebookNode, kernel_name: str, **options: Any) -> NotebookNode:
        """Execute ``nb`` and return it."""
        from ssot.lab.execution import Execution

        executed: NotebookNode = Execution.execute_notebook(nb, kernel_name, **options)
        return executed

    @classmethod
    def nb_kernel_name(cls, nb: NotebookNode, name: str | None = None) -> str:
        """Return the name of the kernel that the notebook asks for."""
        from ssot.lab.execution import Execution

        return str(Execution.nb_kernel_name(nb, name))

    @classmethod
    def nb_language(cls, nb: NotebookNode, language: str | None = None) -> str:
        """Return the language of the notebook."""
        from ssot.lab.execution import Execution

        return str(Execution.nb_language(nb, language))
