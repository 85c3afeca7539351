"""A device that goes wrong as a test wants it, in the process of the daemon that uses it."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from drpwatch.errors import DeviceFault, DeviceOutOfMemory
from drpwatch.micrograph import Picks
from drpwatch.pick.scene import SHAPE_YX
from tests.daemon.rule import image

GIB = 2**30


@dataclass
class FakeDevice:
    """What goes wrong. Micrographs are told by the seeds that their pixels are made from."""

    segfaults_on: list[int] = field(default_factory=list)
    hangs_on: list[int] = field(default_factory=list)
    faults_on: list[int] = field(default_factory=list)
    room_px: int = 10_000  # no larger tiles fit into memory
    full_in: list[str] = field(
        default_factory=list
    )  # steps that lack memory, one micrograph's try after the other
    others_gib: float = 0.0  # of 10, held by others
    wrong_from: int | None = None  # the canary's pick from which on it computes something else
    canaries: int = 0
    dead: bool = False
    is_away: bool = False  # it is not ready
    tiles: list[int] = field(default_factory=list)  # in which a micrograph was tried
    uploads: list[Any] = field(default_factory=list)

    def step(self, name: str, pixels: npt.NDArray[Any], tile_px: int = 0) -> None:
        """Do to the process what this step does; the canary is spared."""
        self.use()
        if pixels.shape == SHAPE_YX:
            return
        if name == "detect":
            self.tiles.append(tile_px)
            if self._is_one_of(self.segfaults_on, pixels):
                ctypes.string_at(0)
            if self._is_one_of(self.hangs_on, pixels):
                threading.Event().wait()
            if self._is_one_of(self.faults_on, pixels):
                self.dead = True
                raise DeviceFault("CUDA error: an illegal memory access was encountered")
        if self.full_in and self.full_in[0] == name:
            self.full_in.pop(0)
            raise DeviceOutOfMemory(f"out of memory on the device: in {name}")
        if tile_px > self.room_px:
            raise DeviceOutOfMemory(f"out of memory on the device: {tile_px} px")

    def use(self) -> None:
        """Say at once, and for sure, that a device is used after it failed."""
        if self.dead:
            print("USED AFTER A FAULT", file=sys.stderr, flush=True)
            os._exit(99)

    def computed(self, pixels: npt.NDArray[Any], picks: Picks) -> Picks:
        """Return what this device makes of right picks."""
        if pixels.shape != SHAPE_YX:
            return picks
        self.canaries += 1
        if self.wrong_from is None or self.canaries < self.wrong_from:
            return picks
        return Picks(picks.yx_px + 3, picks.score, picks.threshold, picks.weights_sha256)

    def memory_bytes(self) -> dict[str, int]:
        mine, total = GIB, 10 * GIB
        return {
            "allocated": mine, "reserved": mine, "peak": mine, "total": total,
            "free": total - mine - int(self.others_gib * GIB),
        }  # fmt: skip

    @staticmethod
    def _is_one_of(seeds: list[int], pixels: npt.NDArray[Any]) -> bool:
        return any(np.array_equal(image(seed), pixels) for seed in seeds)
