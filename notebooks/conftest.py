"""What ``pytest --nbval`` shows of the notebooks."""

from ssot.lab.nbval_items import (
    pytest_collect_file,
    pytest_collection_modifyitems,
    pytest_xdist_make_scheduler,
)

__all__ = ["pytest_collect_file", "pytest_collection_modifyitems", "pytest_xdist_make_scheduler"]
