"""drpwatch: live particle picking at the cryo-electron microscope.

For Python programs there is `Picker`, as in `Picker().pick("micrograph.mrc", diameter_angstrom=180)`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from drpwatch.library import Picker

__version__ = "0.1.0"
__all__ = ["Picker", "__version__"]


def __getattr__(name: str) -> Any:
    # On first use: importing torch takes seconds, and most commands do without it.
    if name == "Picker":
        from drpwatch.library import Picker

        return Picker
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *__all__]
