"""drpwatch: live particle picking at the cryo-electron microscope."""

__version__ = "0.1.0"
